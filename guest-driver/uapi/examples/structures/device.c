// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
// Functions that the CPU and the device both run, on the same pointers.

#include "structures.h"

// The sum of the values of the keys that are asked for.
uint64_t btree_find(const struct btree_node *root, const struct btree_queries *queries)
{
	uint64_t sum = 0;

	for (uint64_t query = 0; query < queries->count; query++) {
		const uint64_t key = queries->keys[query];
		const struct btree_node *node = root;

		while (node) {
			uint64_t index = 0;

			while (index < node->count && node->keys[index] < key)
				index++;
			if (index < node->count && node->keys[index] == key) {
				sum += node->values[index];
				break;
			}
			node = node->children[index];
		}
	}
	return sum;
}

// Adds to every value of a tree. Returns how many there are.
uint64_t btree_add(struct btree_node *root, uint64_t more)
{
	uint64_t values = root->count;

	for (uint64_t index = 0; index < root->count; index++)
		root->values[index] += more;
	for (uint64_t index = 0; index <= root->count; index++) {
		if (root->children[index])
			values += btree_add(root->children[index], more);
	}
	return values;
}

static uint64_t hash(uint64_t key)
{
	key *= 0x9e3779b97f4a7c15u;
	return key ^ key >> 32;
}

// Joins the part of the probes that is this hart's. Returns how many pairs all harts have found by then.
uint64_t hash_join(struct join *join, uint64_t unused1, uint64_t unused2, uint64_t unused3, uint64_t unused4,
		   uint64_t hart)
{
	(void)unused1;
	(void)unused2;
	(void)unused3;
	(void)unused4;
	for (uint64_t index = hart; index < join->probe_count; index += join->harts) {
		const struct row *probe = &join->probes[index];
		const struct row *row = join->buckets[hash(probe->key) % join->bucket_count];

		for (; row; row = row->next) {
			uint64_t place;

			if (row->key != probe->key)
				continue;
			place = __atomic_fetch_add(&join->match_count, 1, __ATOMIC_RELAXED);
			if (place < join->match_room) {
				join->matches[place][0] = row->payload;
				join->matches[place][1] = probe->payload;
			}
		}
	}
	return __atomic_load_n(&join->match_count, __ATOMIC_RELAXED);
}

// Sets the level of each vertex that can be reached. Returns the sum of the levels.
uint64_t breadth_first(struct graph *graph)
{
	uint64_t head = 0, tail = 0, sum = 0;

	graph->first->level = 1;
	graph->queue[tail++] = graph->first;
	while (head < tail) {
		const struct vertex *vertex = graph->queue[head++];

		sum += vertex->level;
		for (uint64_t edge = 0; edge < vertex->edge_count; edge++) {
			struct vertex *next = vertex->edges[edge];

			if (next->level == 0) {
				next->level = vertex->level + 1;
				graph->queue[tail++] = next;
			}
		}
	}
	return sum;
}
