// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sprintf.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/workqueue.h>

#include "process.h"

struct mounter {
	struct work_struct work;
	struct vfsmount *proc;
};

static void mount_proc(struct work_struct *work)
{
	struct mounter *mounter = container_of(work, struct mounter, work);
	struct file_system_type *type = get_fs_type("proc");

	mounter->proc = type ? kern_mount(type) : ERR_PTR(-ENODEV);
	if (type)
		module_put(type->owner);
}

/*
 * A mount of procfs that no process sees. The file system shows the processes of the namespace of its
 * mounter, so a worker of the kernel mounts it, which is in the first one.
 */
struct vfsmount *vhmm_proc_mount(void)
{
	struct mounter mounter;

	INIT_WORK_ONSTACK(&mounter.work, mount_proc);
	schedule_work(&mounter.work);
	flush_work(&mounter.work);
	destroy_work_on_stack(&mounter.work);
	return mounter.proc;
}

void vhmm_proc_unmount(struct vfsmount *proc)
{
	kern_unmount(proc);
}

/*
 * Whether the calling task may debug @task, as far as its memory is @mm: the kernel says so when the
 * task opens /proc/PID/mem. ptrace_may_access() and mm_access(), which that comes down to, are not
 * exported. The open file refers to the memory that was checked, so it does not matter what the task
 * executes meanwhile: -EAGAIN says that it has other memory by now.
 */
int vhmm_proc_may_access(struct vfsmount *proc, struct task_struct *task, struct mm_struct *mm)
{
	struct path root = { .mnt = proc, .dentry = proc->mnt_root };
	char name[16 + sizeof("/mem")];
	struct file *file;
	int error = 0;

	snprintf(name, sizeof(name), "%d/mem", task_pid_nr(task));
	file = file_open_root(&root, name, O_RDONLY | O_LARGEFILE, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	/* All that is done with the pointer is this comparison. */
	if (file->private_data != mm)
		error = -EAGAIN;
	fput(file);
	return error;
}

/* Whether @task, whose memory was @mm, is about to end, or has other memory. */
bool vhmm_task_has_left(struct task_struct *task, struct mm_struct *mm)
{
	return READ_ONCE(task->mm) != mm || READ_ONCE(task->signal->flags) & SIGNAL_GROUP_EXIT;
}

/* In pages. */
unsigned long vhmm_task_memlock_limit(struct task_struct *task)
{
	return task_rlimit(task, RLIMIT_MEMLOCK) >> PAGE_SHIFT;
}

void vhmm_task_kill(struct task_struct *task)
{
	send_sig(SIGKILL, task, 1);
}

/* The process of @task with a reference, or NULL if it has ended. */
struct pid *vhmm_task_process(struct task_struct *task)
{
	struct pid *process;

	rcu_read_lock();
	process = get_pid(task_tgid(task));
	rcu_read_unlock();
	return process;
}

bool vhmm_process_has_ended(struct pid *process)
{
	return !pid_has_task(process, PIDTYPE_TGID);
}

/* No two processes have the same number at a time. */
unsigned int vhmm_process_number(struct pid *process)
{
	return pid_nr(process);
}

#ifdef CONFIG_TRACEPOINTS
static void find_fork(struct tracepoint *tracepoint, void *data)
{
	struct tracepoint **found = data;

	if (!strcmp(tracepoint->name, "sched_process_fork"))
		*found = tracepoint;
}

/* The tracepoint is not exported, and has to be found by its name. */
static struct tracepoint *fork_tracepoint(void)
{
	struct tracepoint *found = NULL;

	for_each_kernel_tracepoint(find_fork, &found);
	return found;
}

/*
 * Has @forked called whenever a task begins another one, which has not run yet. It must not sleep.
 */
int vhmm_fork_watch_begin(vhmm_forked_t forked, void *data)
{
	struct tracepoint *tracepoint = fork_tracepoint();

	return tracepoint ? tracepoint_probe_register(tracepoint, forked, data) : -EOPNOTSUPP;
}

void vhmm_fork_watch_end(vhmm_forked_t forked, void *data)
{
	tracepoint_probe_unregister(fork_tracepoint(), forked, data);
	tracepoint_synchronize_unregister();
}
#else
int vhmm_fork_watch_begin(vhmm_forked_t forked, void *data)
{
	return -EOPNOTSUPP;
}

void vhmm_fork_watch_end(vhmm_forked_t forked, void *data)
{
}
#endif
