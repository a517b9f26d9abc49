/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/* Data structures full of pointers, and what the CPU and the device both can do with them. */
#ifndef STRUCTURES_H
#define STRUCTURES_H

#include <stdint.h>

#define BTREE_KEYS 15

/* A node of a B-tree: `count` keys in order, their values, and between them the children, if there are any. */
struct btree_node {
	uint64_t count;
	uint64_t keys[BTREE_KEYS];
	uint64_t values[BTREE_KEYS];
	struct btree_node *children[BTREE_KEYS + 1];
};

struct btree_queries {
	const uint64_t *keys;
	uint64_t count;
};

struct row {
	struct row *next;
	uint64_t key;
	uint64_t payload;
};

/* A table with a hash index, and one to be joined with it. */
struct join {
	struct row **buckets;
	uint64_t bucket_count;
	const struct row *probes;
	uint64_t probe_count;
	uint64_t harts;
	/* Pairs that matched, as far as there is room; the harts take places by an atomic addition. */
	uint64_t (*matches)[2];
	uint64_t match_room;
	uint64_t match_count;
};

struct vertex {
	struct vertex **edges;
	uint64_t edge_count;
	/* How many edges it is away from the first, plus 1; 0 before it is reached. */
	uint64_t level;
};

struct graph {
	struct vertex *first;
	/* Room for every vertex. */
	struct vertex **queue;
};

uint64_t btree_find(const struct btree_node *root, const struct btree_queries *queries);
uint64_t btree_add(struct btree_node *root, uint64_t more);
uint64_t hash_join(struct join *join, uint64_t unused1, uint64_t unused2, uint64_t unused3, uint64_t unused4,
		   uint64_t hart);
uint64_t breadth_first(struct graph *graph);

#endif
