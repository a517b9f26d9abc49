/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Processes: which memory the caller may touch, whether a process has ended, and which process begins another.
 */
#ifndef VHMM_PROCESS_H
#define VHMM_PROCESS_H

#include <linux/types.h>

struct mm_struct;
struct pid;
struct task_struct;
struct vfsmount;

struct vfsmount *vhmm_proc_mount(void);
void vhmm_proc_unmount(struct vfsmount *proc);
int vhmm_proc_may_access(struct vfsmount *proc, struct task_struct *task, struct mm_struct *mm);

bool vhmm_task_has_left(struct task_struct *task, struct mm_struct *mm);
unsigned long vhmm_task_memlock_limit(struct task_struct *task);
void vhmm_task_kill(struct task_struct *task);
struct pid *vhmm_task_process(struct task_struct *task);
bool vhmm_process_has_ended(struct pid *process);
unsigned int vhmm_process_number(struct pid *process);

typedef void (*vhmm_forked_t)(void *data, struct task_struct *parent, struct task_struct *child);

int vhmm_fork_watch_begin(vhmm_forked_t forked, void *data);
void vhmm_fork_watch_end(vhmm_forked_t forked, void *data);

#endif
