// SPDX-License-Identifier: GPL-2.0-only
/*
 * Seeded delays at the entry and return of kernel functions, which make rare races certain.
 *
 * A write to /dev/hmm_delays adds a delay, which belongs to the open file and goes with it, however
 * its process ends. A read lists the delays of all files. docs/delays.md describes both.
 *
 * Probes run with preemption disabled, in the middle of anything: a delay is a bounded busy wait.
 * Nothing that a probe calls may be probed itself.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* Microseconds: what one delay may take. */
#define SHORTEST	1U
#define LONGEST		2000U
/* A chance is a number of a million. */
#define CERTAIN		1000000U
/* Delays of one open file. */
#define MOST		64U
/* Bytes of one write. */
#define LONGEST_LINE	512U
/* Calls of a function that wait for its return at the same time; more pass without a delay. */
#define MOST_RETURNS	256
/* In each WINDOW (nanoseconds) a processor spends at most half in delays (microseconds). */
#define WINDOW		(100 * NSEC_PER_MSEC)
#define MOST_OF_WINDOW	(50 * USEC_PER_MSEC)

struct delay {
	struct list_head in_all;
	/* Only the one of them that at_return names is registered. */
	struct kprobe entry;
	struct kretprobe ret;
	bool at_return;
	/* Whether short delays are more frequent: each doubling is as likely as the next. */
	bool logarithmic;
	char function[KSYM_NAME_LEN];
	unsigned int min_us;
	unsigned int max_us;
	unsigned int chance;
	u64 seed;
	/* Only this process and its descendants; NULL: all tasks. */
	struct pid *of;
	/* Who added it. */
	struct pid *owner;
	atomic64_t calls;
	atomic64_t delays;
	atomic64_t spared;
	atomic64_t micros;
};

/* What belongs to an open file. all_lock protects it. */
struct session {
	unsigned int count;
	struct delay *delays[MOST];
};

static DEFINE_MUTEX(all_lock);
static LIST_HEAD(all);

struct budget {
	u64 since;
	u64 spent_us;
};

static DEFINE_PER_CPU(struct budget, budgets);

/* The finalizer of splitmix64. */
static u64 mix(u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}
NOKPROBE_SYMBOL(mix);

/* A number below the limit, which is above 0. */
static unsigned int below(u64 random, unsigned int limit)
{
	return ((random & U32_MAX) * limit) >> 32;
}
NOKPROBE_SYMBOL(below);

static unsigned int length_us(const struct delay *delay, u64 random)
{
	unsigned int min = delay->min_us, max = delay->max_us;

	if (delay->logarithmic && max > min) {
		unsigned int doublings = ilog2(max / min) + 1;

		min <<= below(random, doublings);
		max = min(max, 2 * min);
		random = mix(random + 1);
	}
	return min + below(random, max - min + 1);
}
NOKPROBE_SYMBOL(length_us);

/* Whether this is the current task and no interrupt. A probe may look like an NMI itself. */
static bool in_a_task(void)
{
	unsigned long hard = preempt_count() & HARDIRQ_MASK;

	return !in_serving_softirq() && hard <= (in_nmi() ? HARDIRQ_OFFSET : 0);
}
NOKPROBE_SYMBOL(in_a_task);

/* Preemption is disabled, which keeps the ancestors in place. */
static bool is_descendant(const struct pid *ancestor)
{
	struct task_struct *task = current;

	/* The parent of the first process and of the first kernel thread is task 0. */
	while (task->pid > 1) {
		if (task_tgid(task) == ancestor)
			return true;
		task = rcu_dereference_sched(task->real_parent);
	}
	return false;
}
NOKPROBE_SYMBOL(is_descendant);

static bool applies(const struct delay *delay)
{
	return in_a_task() && (!delay->of || is_descendant(delay->of));
}
NOKPROBE_SYMBOL(applies);

/* Takes a time from the processor's budget. Preemption is disabled. */
static bool may_spend(unsigned int us)
{
	struct budget *budget = this_cpu_ptr(&budgets);
	u64 now = local_clock();

	if (now - budget->since > WINDOW) {
		budget->since = now;
		budget->spent_us = 0;
	}
	if (budget->spent_us + us > MOST_OF_WINDOW)
		return false;
	budget->spent_us += us;
	return true;
}
NOKPROBE_SYMBOL(may_spend);

static void delay_here(struct delay *delay)
{
	u64 call = atomic64_inc_return(&delay->calls);
	u64 random = mix(delay->seed + call * 0x9e3779b97f4a7c15ULL);
	unsigned int us;

	if (below(random >> 32, CERTAIN) >= delay->chance)
		return;
	us = length_us(delay, mix(random));
	if (!may_spend(us)) {
		atomic64_inc(&delay->spared);
		return;
	}
	atomic64_inc(&delay->delays);
	atomic64_add(us, &delay->micros);
	udelay(us);
}
NOKPROBE_SYMBOL(delay_here);

static int at_entry(struct kprobe *probe, struct pt_regs *regs)
{
	struct delay *delay = container_of(probe, struct delay, entry);

	if (applies(delay))
		delay_here(delay);
	return 0;
}
NOKPROBE_SYMBOL(at_entry);

/* NULL: the delay is being removed. */
static struct delay *of_instance(struct kretprobe_instance *instance)
{
#ifdef CONFIG_KRETPROBES
	struct kretprobe *probe = get_kretprobe(instance);

	return probe ? container_of(probe, struct delay, ret) : NULL;
#else
	return NULL;
#endif
}
NOKPROBE_SYMBOL(of_instance);

/* Calls of other tasks need not be remembered until they return. */
static int before_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct delay *delay = of_instance(instance);

	return delay && applies(delay) ? 0 : 1;
}
NOKPROBE_SYMBOL(before_return);

static int at_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct delay *delay = of_instance(instance);

	if (delay)
		delay_here(delay);
	return 0;
}
NOKPROBE_SYMBOL(at_return);

static void delay_free(struct delay *delay)
{
	put_pid(delay->of);
	put_pid(delay->owner);
	kfree(delay);
}

DEFINE_FREE(delay, struct delay *, if (!IS_ERR_OR_NULL(_T)) delay_free(_T))

/* Takes one "name=value". */
static int delay_set(struct delay *delay, const char *name, const char *value)
{
	unsigned int number;
	int ret;

	if (!strcmp(name, "seed"))
		return kstrtou64(value, 10, &delay->seed);
	if (!strcmp(name, "at")) {
		ret = match_string((const char * const []){ "entry", "return" }, 2, value);
		delay->at_return = ret > 0;
		return min(ret, 0);
	}
	if (!strcmp(name, "shape")) {
		ret = match_string((const char * const []){ "uniform", "log" }, 2, value);
		delay->logarithmic = ret > 0;
		return min(ret, 0);
	}

	ret = kstrtouint(value, 10, &number);
	if (ret)
		return ret;
	if (!strcmp(name, "min")) {
		delay->min_us = number;
	} else if (!strcmp(name, "max")) {
		delay->max_us = number;
	} else if (!strcmp(name, "chance")) {
		delay->chance = number;
	} else if (!strcmp(name, "of") && !delay->of && number <= PID_MAX_LIMIT) {
		delay->of = find_get_pid(number);
		return delay->of ? 0 : -ESRCH;
	} else {
		return -EINVAL;
	}
	return 0;
}

/* Reads "FUNCTION name=value ...". */
static struct delay *delay_parse(char *line)
{
	struct delay *delay __free(delay) = kzalloc_obj(*delay);
	char *word, *value;
	int ret;

	if (!delay)
		return ERR_PTR(-ENOMEM);
	delay->owner = get_pid(task_tgid(current));
	delay->min_us = SHORTEST;
	delay->max_us = SHORTEST;
	delay->chance = CERTAIN;

	line = strim(line);
	word = strsep(&line, " ");
	if (!*word || strscpy(delay->function, word) < 0)
		return ERR_PTR(-EINVAL);
	while ((word = strsep(&line, " "))) {
		value = strchr(word, '=');
		if (!value)
			return ERR_PTR(-EINVAL);
		*value = '\0';
		ret = delay_set(delay, word, value + 1);
		if (ret)
			return ERR_PTR(ret);
	}
	if (delay->min_us < SHORTEST || delay->max_us > LONGEST || delay->min_us > delay->max_us ||
	    delay->chance > CERTAIN)
		return ERR_PTR(-ERANGE);
	return_ptr(delay);
}

static int delay_register(struct delay *delay)
{
	int ret;

	if (delay->at_return) {
		delay->ret.kp.symbol_name = delay->function;
		delay->ret.entry_handler = before_return;
		delay->ret.handler = at_return;
		delay->ret.maxactive = MOST_RETURNS;
		ret = register_kretprobe(&delay->ret);
	} else {
		delay->entry.symbol_name = delay->function;
		delay->entry.pre_handler = at_entry;
		ret = register_kprobe(&delay->entry);
	}
	/* These mean that the function must not be probed, and the line is right. */
	if (ret == -EINVAL || ret == -EILSEQ || ret == -ERANGE)
		return -EPERM;
	return ret;
}

static void session_clear(struct session *session)
{
	struct kretprobe *returns[MOST];
	struct kprobe *entries[MOST];
	unsigned int at_return = 0, at_entry = 0, i;

	for (i = 0; i < session->count; i++) {
		struct delay *delay = session->delays[i];

		list_del(&delay->in_all);
		if (delay->at_return)
			returns[at_return++] = &delay->ret;
		else
			entries[at_entry++] = &delay->entry;
	}
	/* Both wait until no probe runs any more. */
	unregister_kretprobes(returns, at_return);
	unregister_kprobes(entries, at_entry);
	for (i = 0; i < session->count; i++)
		delay_free(session->delays[i]);
	session->count = 0;
}

static int delays_show(struct seq_file *seq, void *unused)
{
	struct pid_namespace *ns = task_active_pid_ns(current);
	struct delay *delay;

	guard(mutex)(&all_lock);
	list_for_each_entry(delay, &all, in_all) {
		unsigned long missed = delay->at_return ?
			delay->ret.nmissed + delay->ret.kp.nmissed : delay->entry.nmissed;

		seq_printf(seq, "%s at=%s min=%u max=%u chance=%u shape=%s seed=%llu of=%d",
			   delay->function, delay->at_return ? "return" : "entry", delay->min_us,
			   delay->max_us, delay->chance, delay->logarithmic ? "log" : "uniform",
			   delay->seed, pid_nr_ns(delay->of, ns));
		seq_printf(seq, " owner=%d calls=%lld delays=%lld micros=%lld spared=%lld missed=%lu\n",
			   pid_nr_ns(delay->owner, ns), atomic64_read(&delay->calls),
			   atomic64_read(&delay->delays), atomic64_read(&delay->micros),
			   atomic64_read(&delay->spared), missed);
	}
	return 0;
}

static int delays_open(struct inode *inode, struct file *file)
{
	struct session *session;
	int ret;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	session = kzalloc_obj(*session);
	if (!session)
		return -ENOMEM;
	/* It is the misc device, and seq_file expects nothing there. */
	file->private_data = NULL;
	ret = single_open(file, delays_show, session);
	if (ret)
		kfree(session);
	return ret;
}

static ssize_t delays_write(struct file *file, const char __user *buffer, size_t length,
			    loff_t *offset)
{
	struct session *session = ((struct seq_file *)file->private_data)->private;
	struct delay *delay __free(delay) = NULL;
	char *line __free(kfree) = NULL;
	int ret;

	if (length > LONGEST_LINE)
		return -E2BIG;
	line = memdup_user_nul(buffer, length);
	if (IS_ERR(line))
		return PTR_ERR(no_free_ptr(line));
	delay = delay_parse(line);
	if (IS_ERR(delay))
		return PTR_ERR(no_free_ptr(delay));

	guard(mutex)(&all_lock);
	if (session->count == MOST)
		return -ENOSPC;
	ret = delay_register(delay);
	if (ret)
		return ret;
	list_add_tail(&delay->in_all, &all);
	session->delays[session->count++] = no_free_ptr(delay);
	return length;
}

static int delays_release(struct inode *inode, struct file *file)
{
	struct session *session = ((struct seq_file *)file->private_data)->private;

	scoped_guard(mutex, &all_lock)
		session_clear(session);
	kfree(session);
	return single_release(inode, file);
}

static const struct file_operations delays_fops = {
	.owner = THIS_MODULE,
	.open = delays_open,
	.read = seq_read,
	.write = delays_write,
	.llseek = seq_lseek,
	.release = delays_release,
};

static struct miscdevice delays_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hmm_delays",
	.fops = &delays_fops,
	.mode = 0600,
};

module_misc_device(delays_device);

MODULE_AUTHOR("The virtio-hmm authors");
MODULE_DESCRIPTION("Delays at the entry and return of kernel functions");
MODULE_LICENSE("GPL");
