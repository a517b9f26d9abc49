// SPDX-License-Identifier: GPL-2.0-only
#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/huge_mm.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/topology.h>

#include "placement.h"

bool vhmm_has_nodes(void)
{
	return num_online_nodes() > 1;
}

/* Whether the calling task allocates for an address space that it does not run in. */
bool vhmm_mm_is_foreign(const struct mm_struct *mm)
{
	return current->mm != mm;
}

#if defined(CONFIG_NUMA) && defined(CONFIG_MEMCG)
static void apply_policy(struct vhmm_placement *placement, const struct mempolicy *policy)
{
	nodemask_t nodes;

	if (!nodes_and(nodes, policy->nodes, placement->nodes))
		return;
	switch (policy->mode) {
	case MPOL_BIND:
		placement->nodes = nodes;
		break;
	case MPOL_INTERLEAVE:
	case MPOL_WEIGHTED_INTERLEAVE:
		placement->turns = nodes;
		break;
	case MPOL_PREFERRED:
	case MPOL_PREFERRED_MANY:
		break;
	default:
		return;
	}
	if (!node_isset(placement->nid, nodes))
		placement->nid = first_node(nodes);
}
#endif

/*
 * Whether the allocations of the calling task are bound to nodes by a policy or a cpuset of its own.
 */
static bool caller_is_restricted(void)
{
#ifdef CONFIG_NUMA
	if (current->mempolicy)
		return true;
#endif
#ifdef CONFIG_CPUSETS
	return !nodes_subset(node_states[N_MEMORY], current->mems_allowed);
#else
	return false;
#endif
}

/*
 * What the memory policy and the cpuset of the owner of @mm say: the owner is the task that stands
 * for the process, usually its first thread. The policy of @vma, a mapping of @mm, counts before that
 * of the owner; the caller has the mmap lock. Returns false if any node will do and
 * the calling task may use them all.
 */
bool vhmm_placement_of(struct mm_struct *mm, struct vm_area_struct *vma,
		       struct vhmm_placement *placement)
{
#if defined(CONFIG_NUMA) && defined(CONFIG_MEMCG)
	const struct mempolicy *policy = vma->vm_policy;
	struct task_struct *owner;
	bool restricted;

	if (num_online_nodes() < 2)
		return false;
	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	if (owner)
		get_task_struct(owner);
	rcu_read_unlock();
	if (!owner)
		return false;

	/* Protects both the policy and the nodes of a task from other tasks' changes. */
	task_lock(owner);
	placement->turn = 0;
	placement->nid = cpu_to_mem(task_cpu(owner));
	nodes_clear(placement->turns);
	placement->nodes = node_states[N_MEMORY];
#ifdef CONFIG_CPUSETS
	if (nodes_intersects(owner->mems_allowed, node_states[N_MEMORY]))
		nodes_and(placement->nodes, owner->mems_allowed, node_states[N_MEMORY]);
#endif
	if (!policy)
		policy = owner->mempolicy;
	restricted = policy || !nodes_equal(placement->nodes, node_states[N_MEMORY]) ||
		     caller_is_restricted();
	if (policy)
		apply_policy(placement, policy);
	task_unlock(owner);
	put_task_struct(owner);

	if (!node_isset(placement->nid, placement->nodes))
		placement->nid = first_node(placement->nodes);
	return restricted;
#else
	return false;
#endif
}

/*
 * Makes the calling thread of the kernel allocate as the owner of @mm does, until vhmm_restore_rules():
 * for page faults, whose allocations are the kernel's own. Does nothing for other callers, whose rules
 * others may look at, and where there is one node.
 *
 * The thread gets a copy of the owner's policy: those who allocate by the policy of a task keep no
 * reference to it, and nobody else looks at the policy of a thread without an address space.
 */
void vhmm_adopt_rules(struct mm_struct *mm, struct vhmm_adopted_rules *rules)
{
	rules->is_adopted = false;
#if defined(CONFIG_NUMA) && defined(CONFIG_MEMCG)
	nodemask_t mems = node_states[N_MEMORY];
	struct task_struct *owner;
	bool has_policy;

	if (num_online_nodes() < 2 || !(current->flags & PF_KTHREAD))
		return;
	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	if (owner)
		get_task_struct(owner);
	rcu_read_unlock();
	if (!owner)
		return;

	/* Protects both the policy and the nodes of a task from other tasks' changes. */
	task_lock(owner);
	has_policy = owner->mempolicy;
	if (has_policy)
		rules->policy = *owner->mempolicy;
#ifdef CONFIG_CPUSETS
	if (nodes_intersects(owner->mems_allowed, node_states[N_MEMORY]))
		nodes_and(mems, owner->mems_allowed, node_states[N_MEMORY]);
#endif
	task_unlock(owner);
	put_task_struct(owner);

	atomic_set(&rules->policy.refcnt, 1);
	task_lock(current);
	rules->own_policy = current->mempolicy;
	current->mempolicy = has_policy ? &rules->policy : NULL;
	task_unlock(current);
#ifdef CONFIG_CPUSETS
	rules->own_mems = current->mems_allowed;
	set_mems_allowed(mems);
#endif
	rules->is_adopted = true;
#endif
}

/* Gives the calling thread its own rules again. */
void vhmm_restore_rules(struct vhmm_adopted_rules *rules)
{
	if (!rules->is_adopted)
		return;
#if defined(CONFIG_NUMA) && defined(CONFIG_MEMCG)
	task_lock(current);
	current->mempolicy = rules->own_policy;
	task_unlock(current);
#ifdef CONFIG_CPUSETS
	set_mems_allowed(rules->own_mems);
#endif
#endif
}

static struct page *alloc(struct vhmm_placement *placement, gfp_t gfp, unsigned int order)
{
#ifdef CONFIG_CPUSETS
	/*
	 * The kernel keeps the calling task within its own cpuset as well. Rather than let it look for
	 * memory, and kill for it, where there can be none, say so.
	 */
	if (!nodes_intersects(placement->nodes, current->mems_allowed))
		return NULL;
#endif
	if (!nodes_empty(placement->turns)) {
		if (!placement->turn++)
			placement->nid = first_node(placement->turns);
		else
			placement->nid = next_node_in(placement->nid, placement->turns);
	}
	return (struct page *)__folio_alloc(gfp, order, placement->nid, &placement->nodes);
}

/* A single page, or NULL. */
struct page *vhmm_placement_alloc(struct vhmm_placement *placement)
{
	return alloc(placement, GFP_HIGHUSER_MOVABLE, 0);
}

/* A huge page, or NULL. */
struct page *vhmm_placement_alloc_huge(struct vhmm_placement *placement)
{
	return alloc(placement, GFP_TRANSHUGE | __GFP_NORETRY, HPAGE_PMD_ORDER);
}
