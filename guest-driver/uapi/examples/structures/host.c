// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
// Builds data structures with malloc, and has the CPU and the device do the same with them.
//
// Usage: structures NODE btree|join|bfs [SIZE] [stay|move]
//
// The device gets the pointers that the CPU has. With "move" the memory is advised to be on the device, so each block of 2 MiB
// moves there when the device touches it first; otherwise the device uses it where it is. Prints one line of JSON.

#include <fcntl.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "structures.h"
#include "virtio_hmm.h"

HMM_DEVICE_FUNCTION(btree_find);
HMM_DEVICE_FUNCTION(btree_add);
HMM_DEVICE_FUNCTION(hash_join);
HMM_DEVICE_FUNCTION(breadth_first);

#define HARTS 4
#define PAGE 4096ul

static int node;
static uintptr_t heap;
// What the calls of the device took, in all.
static uint64_t faults, instructions, device_ns, cpu_ns;

static void *get(size_t bytes)
{
	void *memory = calloc(1, bytes);

	if (!memory) {
		perror("calloc");
		exit(1);
	}
	return memory;
}

// The same numbers each time.
static uint64_t number(void)
{
	static uint64_t state = 1;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t on_device(const char *what, const struct hmm_call *call)
{
	struct hmm_job_wait end;

	if (hmm_call(node, call, &end) != 0) {
		fprintf(stderr, "%s: %s (status %#x, address %#llx, at %#llx)\n", what, strerror(errno), end.status,
			(unsigned long long)end.address, (unsigned long long)end.program_counter);
		exit(1);
	}
	faults += end.faults;
	instructions += end.amount;
	device_ns += end.device_ns;
	return end.result;
}

static void expect(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "the device gave another answer than the CPU: %s\n", what);
		exit(1);
	}
}

static struct hmm_stats stats(void)
{
	struct hmm_stats stats = { 0 };

	if (ioctl(node, HMM_STATS, &stats) != 0) {
		perror("STATS");
		exit(1);
	}
	return stats;
}

static void advise(void)
{
	struct hmm_advise advice = {
		.flags = HMM_ADVISE_SIDE | HMM_ADVISE_TOUCHES,
		.start = heap,
		.end = ((uintptr_t)sbrk(0) + PAGE - 1) & ~(PAGE - 1),
		.side = HMM_SIDE_DEVICE,
		.touches = 1,
	};

	if (ioctl(node, HMM_ADVISE, &advice) != 0) {
		perror("ADVISE");
		exit(1);
	}
}

static bool moves;

// All memory has been taken.
static void built(void)
{
	if (moves)
		advise();
}

// Keys are 2, 4, 6, …; a value is three times its key.
static struct btree_node *btree(uint64_t first, uint64_t count)
{
	struct btree_node *tree = get(sizeof(*tree));

	if (count <= BTREE_KEYS) {
		tree->count = count;
	} else {
		tree->count = BTREE_KEYS;
	}
	for (uint64_t index = 0, at = first; index <= tree->count; index++) {
		// Keys that are below a child, as evenly as it goes.
		const uint64_t below = count - tree->count;
		const uint64_t part = below * (index + 1) / (tree->count + 1) - below * index / (tree->count + 1);

		if (part)
			tree->children[index] = btree(at, part);
		at += part;
		if (index < tree->count) {
			tree->keys[index] = 2 * (at + 1);
			tree->values[index] = 6 * (at + 1);
			at++;
		}
	}
	return tree;
}

static uint64_t run_btree(uint64_t size)
{
	struct btree_node *tree = btree(0, size);
	struct btree_queries queries = { .count = size / 4 + 1 };
	uint64_t *keys = get(queries.count * sizeof(*keys));
	// The device gets a pointer to memory of the heap, as all others.
	struct btree_queries *given = get(sizeof(*given));
	uint64_t started, expected, found;

	for (uint64_t index = 0; index < queries.count; index++)
		keys[index] = number() % (2 * size + 2);
	queries.keys = keys;
	*given = queries;
	built();
	started = now();
	expected = btree_find(tree, given);
	cpu_ns += now() - started;
	found = on_device("btree_find", &(struct hmm_call){
		.function = hmm_device_btree_find,
		.arguments = { (uintptr_t)tree, (uintptr_t)given },
	});
	expect(found == expected, "the sum of the values that were found");
	// The device changes the tree, and the CPU sees that.
	found = on_device("btree_add", &(struct hmm_call){
		.function = hmm_device_btree_add,
		.arguments = { (uintptr_t)tree, 5 },
	});
	expect(found == size, "the number of values in the tree");
	// The other way round: the CPU changes it, and the device sees that.
	expect(btree_add(tree, 7) == size, "the number of values in the tree, by the CPU");
	expected = btree_find(tree, given);
	found = on_device("btree_find", &(struct hmm_call){
		.function = hmm_device_btree_find,
		.arguments = { (uintptr_t)tree, (uintptr_t)given },
	});
	expect(found == expected, "the sum of the values after the changes");
	return found;
}

static int by_payload(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;

	if (a[0] != b[0])
		return a[0] < b[0] ? -1 : 1;
	return a[1] < b[1] ? -1 : a[1] > b[1];
}

static uint64_t run_join(uint64_t size)
{
	struct join *join = get(sizeof(*join)), again;
	struct row *probes = get(size * sizeof(*probes));
	uint64_t(*matches)[2], found = 0, started, sum = 0;

	join->bucket_count = size / 2 + 1;
	join->buckets = get(join->bucket_count * sizeof(*join->buckets));
	for (uint64_t index = 0; index < size; index++) {
		struct row *row = get(sizeof(*row));
		uint64_t key = number() % size, place;

		row->key = key;
		row->payload = index;
		key *= 0x9e3779b97f4a7c15u;
		place = (key ^ key >> 32) % join->bucket_count;
		row->next = join->buckets[place];
		join->buckets[place] = row;
		probes[index].key = number() % size;
		probes[index].payload = index;
	}
	join->probes = probes;
	join->probe_count = size;
	join->match_room = 4 * size + 64;
	join->matches = get(join->match_room * sizeof(*matches));
	matches = get(join->match_room * sizeof(*matches));
	again = *join;
	again.harts = 1;
	again.matches = matches;
	join->harts = HARTS;
	built();
	started = now();
	hash_join(&again, 0, 0, 0, 0, 0);
	cpu_ns += now() - started;
	on_device("hash_join", &(struct hmm_call){
		.function = hmm_device_hash_join,
		.harts = HARTS,
		.arguments = { (uintptr_t)join },
	});
	found = join->match_count;
	expect(found == again.match_count && found <= join->match_room, "the number of pairs");
	qsort(join->matches, found, sizeof(*matches), by_payload);
	qsort(matches, found, sizeof(*matches), by_payload);
	expect(memcmp(join->matches, matches, found * sizeof(*matches)) == 0, "the pairs");
	for (uint64_t index = 0; index < found; index++)
		sum += matches[index][0] * 31 + matches[index][1];
	return sum;
}

static uint64_t run_bfs(uint64_t size)
{
	struct vertex **vertices = get(size * sizeof(*vertices));
	struct graph *graph = get(sizeof(*graph));
	uint64_t *levels = get(size * sizeof(*levels)), expected, found, started;

	for (uint64_t index = 0; index < size; index++)
		vertices[index] = get(sizeof(**vertices));
	for (uint64_t index = 0; index < size; index++) {
		struct vertex *vertex = vertices[index];

		vertex->edge_count = number() % 5;
		vertex->edges = get((vertex->edge_count + 1) * sizeof(*vertex->edges));
		for (uint64_t edge = 0; edge < vertex->edge_count; edge++)
			vertex->edges[edge] = vertices[number() % size];
		// A ring makes sure that every vertex can be reached.
		vertex->edges[vertex->edge_count++] = vertices[(index + 1) % size];
	}
	graph->first = vertices[0];
	graph->queue = get(size * sizeof(*graph->queue));
	built();
	started = now();
	expected = breadth_first(graph);
	cpu_ns += now() - started;
	for (uint64_t index = 0; index < size; index++) {
		levels[index] = vertices[index]->level;
		vertices[index]->level = 0;
	}
	found = on_device("breadth_first", &(struct hmm_call){
		.function = hmm_device_breadth_first,
		.arguments = { (uintptr_t)graph },
	});
	expect(found == expected, "the sum of the levels");
	for (uint64_t index = 0; index < size; index++)
		expect(levels[index] == vertices[index]->level && levels[index] != 0, "the level of a vertex");
	return found;
}

int main(int count, char **words)
{
	static const struct {
		const char *name;
		uint64_t (*run)(uint64_t size);
		uint64_t size;
	} all[] = {
		{ "btree", run_btree, 200000 },
		{ "join", run_join, 50000 },
		{ "bfs", run_bfs, 50000 },
	};
	const char *name = count > 2 ? words[2] : "";
	uint64_t size = count > 3 ? strtoull(words[3], NULL, 10) : 0;
	struct hmm_stats before, after;

	moves = count > 4 && strcmp(words[4], "move") == 0;
	node = count > 1 ? open(words[1], O_RDWR | O_CLOEXEC) : -1;
	if (count > 1 && node < 0) {
		perror(words[1]);
		return 1;
	}
	// All memory of malloc in one piece, so that advice can be given about it.
	mallopt(M_MMAP_MAX, 0);
	heap = ((uintptr_t)sbrk(0) + PAGE - 1) & ~(PAGE - 1);
	for (size_t index = 0; index < sizeof(all) / sizeof(*all); index++) {
		uint64_t answer;

		if (node < 0 || strcmp(all[index].name, name) != 0)
			continue;
		size = size ? size : all[index].size;
		before = stats();
		answer = all[index].run(size);
		after = stats();
		printf("{ \"structure\": \"%s\", \"size\": %llu, \"answer\": %llu, \"heap_bytes\": %llu, "
		       "\"device_faults\": %llu, \"instructions\": %llu, \"device_ns\": %llu, \"cpu_ns\": %llu, "
		       "\"bytes_to_device\": %llu, \"bytes_to_system\": %llu }\n",
		       name, (unsigned long long)size, (unsigned long long)answer,
		       (unsigned long long)((uintptr_t)sbrk(0) - heap), (unsigned long long)faults,
		       (unsigned long long)instructions, (unsigned long long)device_ns, (unsigned long long)cpu_ns,
		       (unsigned long long)(after.bytes_to_device - before.bytes_to_device),
		       (unsigned long long)(after.bytes_to_system - before.bytes_to_system));
		return 0;
	}
	fprintf(stderr, "usage: %s NODE btree|join|bfs [SIZE] [stay|move]\n", words[0]);
	return 2;
}
