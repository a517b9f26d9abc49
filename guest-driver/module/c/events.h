/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The trace events of the driver. docs/tracing.md says what the fields mean.
 *
 * Words (trigger, direction, result, reason, cause) come as start and length, so that the lists of
 * words stay where the rest of the driver has them. Rust calls these through sys/services/trace.rs.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_hmm

#if !defined(VHMM_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define VHMM_EVENTS_H

#include <linux/device.h>
#include <linux/tracepoint.h>

TRACE_EVENT(vhmm_batch_submit,
	TP_PROTO(const struct device *dev, u64 cookie, u32 queue,
		 const char *trigger, u32 trigger_len,
		 const char *direction, u32 direction_len,
		 u32 entries, u64 bytes),
	TP_ARGS(dev, cookie, queue, trigger, trigger_len, direction, direction_len, entries, bytes),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, cookie)
		__field(u64, bytes)
		__field(u32, queue)
		__field(u32, entries)
		__string_len(trigger, trigger, trigger_len)
		__string_len(direction, direction, direction_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->cookie = cookie;
		__entry->bytes = bytes;
		__entry->queue = queue;
		__entry->entries = entries;
		__assign_str(trigger);
		__assign_str(direction);
	),
	TP_printk("dev=%s cookie=%#llx queue=%u trigger=%s direction=%s entries=%u bytes=%llu",
		  __get_str(dev), __entry->cookie, __entry->queue, __get_str(trigger),
		  __get_str(direction), __entry->entries, __entry->bytes)
);

TRACE_EVENT(vhmm_batch_done,
	TP_PROTO(const struct device *dev, u64 cookie, u32 queue,
		 const char *direction, u32 direction_len,
		 const char *result, u32 result_len,
		 u32 entries, u32 entries_ok, u64 bytes, u64 ns),
	TP_ARGS(dev, cookie, queue, direction, direction_len, result, result_len, entries,
		entries_ok, bytes, ns),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, cookie)
		__field(u64, bytes)
		__field(u64, ns)
		__field(u32, queue)
		__field(u32, entries)
		__field(u32, entries_ok)
		__string_len(direction, direction, direction_len)
		__string_len(result, result, result_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->cookie = cookie;
		__entry->bytes = bytes;
		__entry->ns = ns;
		__entry->queue = queue;
		__entry->entries = entries;
		__entry->entries_ok = entries_ok;
		__assign_str(direction);
		__assign_str(result);
	),
	TP_printk("dev=%s cookie=%#llx queue=%u direction=%s result=%s entries=%u entries_ok=%u bytes=%llu ns=%llu",
		  __get_str(dev), __entry->cookie, __entry->queue, __get_str(direction),
		  __get_str(result), __entry->entries, __entry->entries_ok, __entry->bytes,
		  __entry->ns)
);

TRACE_EVENT(vhmm_fault,
	TP_PROTO(const struct device *dev, unsigned long address,
		 const char *result, u32 result_len, u64 bytes, u64 ns),
	TP_ARGS(dev, address, result, result_len, bytes, ns),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(unsigned long, address)
		__field(u64, bytes)
		__field(u64, ns)
		__string_len(result, result, result_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->address = address;
		__entry->bytes = bytes;
		__entry->ns = ns;
		__assign_str(result);
	),
	TP_printk("dev=%s trigger=cpu_fault address=%#lx result=%s bytes=%llu ns=%llu",
		  __get_str(dev), __entry->address, __get_str(result), __entry->bytes,
		  __entry->ns)
);

TRACE_EVENT(vhmm_evict,
	TP_PROTO(const struct device *dev, const char *trigger, u32 trigger_len,
		 u64 device_address, u64 bytes),
	TP_ARGS(dev, trigger, trigger_len, device_address, bytes),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, device_address)
		__field(u64, bytes)
		__string_len(trigger, trigger, trigger_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->device_address = device_address;
		__entry->bytes = bytes;
		__assign_str(trigger);
	),
	TP_printk("dev=%s trigger=%s device_address=%#llx bytes=%llu",
		  __get_str(dev), __get_str(trigger), __entry->device_address, __entry->bytes)
);

TRACE_EVENT(vhmm_skip,
	TP_PROTO(const struct device *dev, const char *trigger, u32 trigger_len,
		 const char *reason, u32 reason_len,
		 unsigned long start, unsigned long end, u64 pages),
	TP_ARGS(dev, trigger, trigger_len, reason, reason_len, start, end, pages),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(u64, pages)
		__string_len(trigger, trigger, trigger_len)
		__string_len(reason, reason, reason_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->start = start;
		__entry->end = end;
		__entry->pages = pages;
		__assign_str(trigger);
		__assign_str(reason);
	),
	TP_printk("dev=%s trigger=%s reason=%s range=%#lx-%#lx pages=%llu",
		  __get_str(dev), __get_str(trigger), __get_str(reason), __entry->start,
		  __entry->end, __entry->pages)
);

TRACE_EVENT(vhmm_loss,
	TP_PROTO(const struct device *dev, const char *cause, u32 cause_len, u64 generation),
	TP_ARGS(dev, cause, cause_len, generation),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, generation)
		__string_len(cause, cause, cause_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->generation = generation;
		__assign_str(cause);
	),
	TP_printk("dev=%s cause=%s generation=%#llx",
		  __get_str(dev), __get_str(cause), __entry->generation)
);

TRACE_EVENT(vhmm_presence,
	TP_PROTO(const char *node, const char *presence, u32 presence_len, u64 resident),
	TP_ARGS(node, presence, presence_len, resident),
	TP_STRUCT__entry(
		__string(node, node)
		__field(u64, resident)
		__string_len(presence, presence, presence_len)
	),
	TP_fast_assign(
		__assign_str(node);
		__entry->resident = resident;
		__assign_str(presence);
	),
	TP_printk("node=%s presence=%s resident=%llu",
		  __get_str(node), __get_str(presence), __entry->resident)
);

TRACE_EVENT(vhmm_device_fault,
	TP_PROTO(const struct device *dev, u32 context, u64 number, u64 address,
		 const char *access, u32 access_len,
		 const char *result, u32 result_len, u64 pages, u64 ns),
	TP_ARGS(dev, context, number, address, access, access_len, result, result_len, pages, ns),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, number)
		__field(u64, address)
		__field(u64, pages)
		__field(u64, ns)
		__field(u32, context)
		__string_len(access, access, access_len)
		__string_len(result, result, result_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->number = number;
		__entry->address = address;
		__entry->pages = pages;
		__entry->ns = ns;
		__entry->context = context;
		__assign_str(access);
		__assign_str(result);
	),
	TP_printk("dev=%s context=%u number=%llu address=%#llx access=%s result=%s pages=%llu ns=%llu",
		  __get_str(dev), __entry->context, __entry->number, __entry->address,
		  __get_str(access), __get_str(result), __entry->pages, __entry->ns)
);

TRACE_EVENT(vhmm_invalidate,
	TP_PROTO(const struct device *dev, u32 context, const char *cause, u32 cause_len,
		 u64 start, u64 end, u64 ns),
	TP_ARGS(dev, context, cause, cause_len, start, end, ns),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, start)
		__field(u64, end)
		__field(u64, ns)
		__field(u32, context)
		__string_len(cause, cause, cause_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->start = start;
		__entry->end = end;
		__entry->ns = ns;
		__entry->context = context;
		__assign_str(cause);
	),
	TP_printk("dev=%s context=%u cause=%s range=%#llx-%#llx ns=%llu",
		  __get_str(dev), __entry->context, __get_str(cause), __entry->start,
		  __entry->end, __entry->ns)
);

TRACE_EVENT(vhmm_job_submit,
	TP_PROTO(const struct device *dev, u32 context, u64 cookie, const char *kind, u32 kind_len,
		 const char *result, u32 result_len),
	TP_ARGS(dev, context, cookie, kind, kind_len, result, result_len),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, cookie)
		__field(u32, context)
		__string_len(kind, kind, kind_len)
		__string_len(result, result, result_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->cookie = cookie;
		__entry->context = context;
		__assign_str(kind);
		__assign_str(result);
	),
	TP_printk("dev=%s context=%u cookie=%#llx kind=%s result=%s", __get_str(dev),
		  __entry->context, __entry->cookie, __get_str(kind), __get_str(result))
);

TRACE_EVENT(vhmm_job_end,
	TP_PROTO(const struct device *dev, u32 context, u64 cookie, const char *status, u32 status_len,
		 u64 address, u64 amount, u32 faults, u64 device_ns),
	TP_ARGS(dev, context, cookie, status, status_len, address, amount, faults, device_ns),
	TP_STRUCT__entry(
		__string(dev, dev_name(dev))
		__field(u64, cookie)
		__field(u64, address)
		__field(u64, amount)
		__field(u64, device_ns)
		__field(u32, context)
		__field(u32, faults)
		__string_len(status, status, status_len)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->cookie = cookie;
		__entry->address = address;
		__entry->amount = amount;
		__entry->device_ns = device_ns;
		__entry->context = context;
		__entry->faults = faults;
		__assign_str(status);
	),
	TP_printk("dev=%s context=%u cookie=%#llx status=%s address=%#llx amount=%llu faults=%u device_ns=%llu",
		  __get_str(dev), __entry->context, __entry->cookie, __get_str(status),
		  __entry->address, __entry->amount, __entry->faults, __entry->device_ns)
);

#endif

/* Read again by define_trace.h, under this name, from this folder. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
