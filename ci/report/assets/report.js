// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Draws the report from the data that the page carries. Text of the recording only gets into the page as text, never as markup.
"use strict";
(() => {
    const byId = (id) => document.getElementById(id);
    const contents = JSON.parse(byId("contents").textContent);
    // Which recording is shown stands in the address, and so does the case that a reader asked for.
    const wanted = new URLSearchParams(location.hash.slice(1));
    const part = Math.min(Math.max(0, Number.parseInt(wanted.get("part") ?? "0", 10) || 0), Math.max(0, contents.parts.length - 1));
    const hasRecording = contents.parts.length > 0;
    const NOTHING = { command: "", milliseconds: 0.001, lost: 0, clock_us: null, clock_rate: null, items: [], lanes: [], kinds: [], causes: {}, latencies: [], skipped: [], times: [], counters: {}, summary: { rows: [] } };
    const data = hasRecording ? JSON.parse(byId(`data-${part}`).textContent) : NOTHING;
    const charts = [];
    let selected = -1;
    let drawing = 0;

    // ---- words and numbers ----
    const scaled = (value, step, units) => {
        let unit = 0;
        while (value >= step && unit < units.length - 1) { value /= step; unit += 1; }
        return (unit === 0 && Number.isInteger(value) ? String(value) : value.toFixed(2)) + " " + units[unit];
    };
    const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
    const time = (ns) => scaled(ns, 1000, ["ns", "us", "ms", "s"]);
    const milliseconds = (ms) => time(ms * 1e6);
    const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

    // ---- elements ----
    const element = (name, text, ...children) => {
        const made = document.createElement(name);
        if (text !== undefined && text !== null) made.textContent = text;
        made.append(...children);
        return made;
    };
    const table = (heads, rows) => {
        const made = element("table");
        made.append(element("thead", null, element("tr", null, ...heads.map((head) => element("th", head)))));
        const body = element("tbody");
        for (const row of rows) {
            body.append(element("tr", null, ...row.map((cell) =>
                cell instanceof Node ? element("td", null, cell) : element("td", cell))));
        }
        made.append(body);
        const frame = element("div", null, made);
        frame.className = "wide";
        return frame;
    };
    const none = (text) => {
        const made = element("p", text);
        made.className = "none";
        return made;
    };
    const linkTo = (item, text) => {
        const made = element("button", text);
        made.type = "button";
        made.addEventListener("click", () => goTo(item));
        return made;
    };

    // ---- items of the timeline: [lane, row, start, duration, kind, link, values] ----
    const LANE = 0, ROW = 1, START = 2, LENGTH = 3, KIND = 4, LINK = 5, VALUES = 6;
    const items = data.items;
    const lanes = data.lanes;
    let rows = 0;
    for (const lane of lanes) {
        lane.first = rows;
        rows += lane.rows;
        lane.items = [];
        lane.longest = 0;
    }
    items.forEach((item, index) => {
        const lane = lanes[item[LANE]];
        lane.items.push(index);
        lane.longest = Math.max(lane.longest, item[LENGTH]);
    });
    const firstAt = (lane, start) => {
        let [low, high] = [0, lane.items.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            if (items[lane.items[middle]][START] < start) low = middle + 1; else high = middle;
        }
        return low;
    };
    const field = (item, name) => item[VALUES][data.kinds[item[KIND]].fields.indexOf(name)];
    const colour = (item) => {
        const kind = data.kinds[item[KIND]].name;
        if (kind === "batch" || kind === "execution") {
            return field(item, "direction") === "to_system" ? "--system" : "--device";
        }
        if (kind === "case") return ["failed", "timed-out"].includes(field(item, "result")) ? "--fault" : "--skip";
        return { fault: "--fault", "device fault": "--fault", eviction: "--evict", invalidation: "--invalidate" }[kind] ?? "--skip";
    };
    const title = (item) => {
        const parts = [data.kinds[item[KIND]].name];
        for (const name of ["name", "direction", "trigger", "reason", "address", "result"]) {
            const value = field(item, name);
            if (value !== undefined && value !== "") parts.push(value);
        }
        const size = field(item, "bytes");
        if (typeof size === "number") parts.push(bytes(size));
        if (item[LENGTH] > 0) parts.push(milliseconds(item[LENGTH]));
        return parts.join(", ");
    };

    // ---- charts ----
    const width = (id) => Math.max(400, byId(id).clientWidth);
    const axis = (more) => ({ stroke: () => style("--faint"), grid: { stroke: () => style("--line"), width: 1 }, ticks: { stroke: () => style("--line"), width: 1 }, ...more });
    const timeAxis = () => axis({ values: (_, splits) => splits.map((ms) => (ms / 1000).toFixed(splits.length > 1 && splits[1] - splits[0] < 1 ? 5 : 3) + " s"), space: 90 });
    let isFollowing = false;
    /// All charts over time show the same time.
    const follow = (from, scale) => {
        if (scale !== "x" || isFollowing) return;
        isFollowing = true;
        for (const chart of charts) {
            if (chart.isTime && chart.plot !== from) chart.plot.setScale("x", { min: from.scales.x.min, max: from.scales.x.max });
        }
        isFollowing = false;
    };
    const add = (id, options, values, isTime) => {
        const hooks = { ...options.hooks };
        if (isTime) hooks.setScale = [...(hooks.setScale ?? []), follow];
        const plot = new uPlot({ ...options, hooks, width: width(id) }, values, byId(id));
        charts.push({ id, plot, isTime });
        return plot;
    };
    const zoomByWheel = (plot) => {
        plot.over.addEventListener("wheel", (event) => {
            event.preventDefault();
            const at = plot.posToVal(event.offsetX, "x");
            const factor = event.deltaY < 0 ? 0.7 : 1 / 0.7;
            const [least, most] = [0, data.milliseconds];
            const min = Math.max(least, at - (at - plot.scales.x.min) * factor);
            const max = Math.min(most, at + (plot.scales.x.max - at) * factor);
            if (max - min > 1e-4) plot.setScale("x", { min, max });
        }, { passive: false });
    };
    const onClick = (plot, clicked) => {
        let down = null;
        plot.over.addEventListener("mousedown", (event) => { down = event.clientX; });
        plot.over.addEventListener("click", (event) => {
            // The end of a zoom is no click.
            if (down !== null && Math.abs(event.clientX - down) < 4) clicked();
        });
    };
    const tip = (plot) => {
        const made = element("div");
        made.className = "tip";
        made.hidden = true;
        plot.over.append(made);
        plot.over.addEventListener("mouseleave", () => { made.hidden = true; });
        return (text, left, top) => {
            made.hidden = text === "";
            made.textContent = text;
            const isRight = left > plot.over.clientWidth / 2;
            made.style.left = isRight ? "" : `${left + 14}px`;
            made.style.right = isRight ? `${plot.over.clientWidth - left + 14}px` : "";
            made.style.top = `${top + 14}px`;
        };
    };

    // ---- timeline ----
    const drawItems = (plot) => {
        const context = plot.ctx;
        const { left, top, width: wide, height: high } = plot.bbox;
        const { min, max } = plot.scales.x;
        const x = (ms) => left + ((ms - min) / (max - min)) * wide;
        const rowHeight = high / rows;
        const y = (row) => top + row * rowHeight;
        context.save();
        context.beginPath();
        context.rect(left, top, wide, high);
        context.clip();
        context.strokeStyle = style("--line");
        for (const lane of lanes) context.strokeRect(left, Math.round(y(lane.first)) + 0.5, wide, 0);
        const colours = {};
        const drawn = [];
        const began = performance.now();
        for (const lane of lanes) {
            // What has the same pixels as something that is drawn is not drawn again: 100,000 items are as fast as 1,000.
            const until = new Array(lane.rows).fill(-1);
            for (let at = firstAt(lane, min - lane.longest); at < lane.items.length; at += 1) {
                const index = lane.items[at];
                const item = items[index];
                if (item[START] > max) break;
                const begin = x(item[START]);
                const end = Math.max(begin + 1.5, x(item[START] + item[LENGTH]));
                if (end < left || (end <= until[item[ROW]] && index !== selected)) continue;
                until[item[ROW]] = Math.max(Math.ceil(end), until[item[ROW]]);
                const name = colour(item);
                context.fillStyle = colours[name] ??= style(name);
                context.fillRect(begin, y(lane.first + item[ROW]) + 2, end - begin, Math.max(1, rowHeight - 4));
                drawn.push(index);
            }
        }
        // From each submission to its execution, as long as that can be told apart.
        const batches = drawn.filter((index) => data.kinds[items[index][KIND]].name === "batch" && items[index][LINK] >= 0);
        if (batches.length <= 300) {
            context.strokeStyle = style("--faint");
            context.lineWidth = 1;
            for (const index of batches) {
                const [from, to] = [items[index], items[items[index][LINK]]];
                context.beginPath();
                context.moveTo(x(from[START]), y(lanes[from[LANE]].first + from[ROW] + 1) - 2);
                context.lineTo(x(to[START]), y(lanes[to[LANE]].first + to[ROW]) + 2);
                context.stroke();
            }
        }
        if (selected >= 0) {
            const item = items[selected];
            const begin = x(item[START]);
            context.strokeStyle = style("--ink");
            context.lineWidth = 2;
            context.strokeRect(begin - 1, y(lanes[item[LANE]].first + item[ROW]) + 1, Math.max(3, x(item[START] + item[LENGTH]) - begin) + 2, rowHeight - 2);
        }
        context.restore();
        drawing = performance.now() - began;
    };
    const itemAt = (plot) => {
        const { left, top } = plot.cursor;
        if (left === undefined || left < 0) return -1;
        const row = Math.floor((top / plot.over.clientHeight) * rows);
        const lane = lanes.find((lane) => row >= lane.first && row < lane.first + lane.rows);
        if (!lane) return -1;
        const at = plot.posToVal(left, "x");
        const slack = plot.posToVal(left + 3, "x") - at;
        let found = -1;
        for (let index = firstAt(lane, at - lane.longest - slack); index < lane.items.length; index += 1) {
            const item = items[lane.items[index]];
            if (item[START] > at + slack) break;
            if (item[ROW] === row - lane.first && item[START] + item[LENGTH] >= at - slack) found = lane.items[index];
        }
        return found;
    };
    const makeTimeline = () => {
        let show = () => {};
        const plot = add("timeline", {
            height: Math.min(900, 60 + rows * 20),
            legend: { show: false },
            cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
            scales: { x: { time: false }, y: { range: () => [0, rows] } },
            axes: [timeAxis(), axis({ size: 170, splits: () => lanes.map((lane) => rows - lane.first - lane.rows / 2), values: () => lanes.map((lane) => lane.name), grid: { show: false } })],
            series: [{}, { paths: () => null, points: { show: false } }],
            hooks: {
                draw: [drawItems],
                setCursor: [(plot) => {
                    const found = itemAt(plot);
                    show(found < 0 ? "" : title(items[found]), plot.cursor.left, plot.cursor.top);
                }],
            },
        }, [[0, data.milliseconds], [0, 0]], true);
        show = tip(plot);
        zoomByWheel(plot);
        onClick(plot, () => { select(itemAt(plot)); });
        return plot;
    };
    const select = (index) => {
        selected = index;
        const detail = byId("detail");
        detail.replaceChildren();
        if (index < 0) {
            detail.append(none("Nothing is selected."));
        } else {
            const item = items[index];
            detail.append(element("strong", `${data.kinds[item[KIND]].name} at ${milliseconds(item[START])}`));
            if (item[LINK] >= 0) {
                const other = items[item[LINK]];
                detail.append(" ", linkTo(item[LINK], `to its ${data.kinds[other[KIND]].name}`));
            }
            const cause = data.causes[index];
            if (cause !== undefined) detail.append(" ", linkTo(cause, "to the fault that it serves"));
            const list = element("dl");
            const told = (name, value) => list.append(element("div", null, element("dt", name), element("dd", value)));
            told("takes", milliseconds(item[LENGTH]));
            data.kinds[item[KIND]].fields.forEach((name, at) => {
                const value = item[VALUES][at];
                if (value !== "") told(name, name === "bytes" ? bytes(value) : String(value));
            });
            detail.append(list);
        }
        timeline.redraw(false);
    };
    const goTo = (index) => {
        const item = items[index];
        const more = Math.max(item[LENGTH] * 2, data.milliseconds / 2000, 0.05);
        timeline.setScale("x", { min: Math.max(0, item[START] - more), max: Math.min(data.milliseconds, item[START] + item[LENGTH] + more) });
        select(index);
        byId("timeline").scrollIntoView({ block: "nearest" });
    };

    // ---- the other charts ----
    const makeThroughput = () => {
        const { x, to_device, to_system } = data.throughput;
        const line = (label, name) => ({ label, stroke: () => style(name), fill: () => `color-mix(in srgb, ${style(name)} 25%, transparent)`, width: 1, paths: uPlot.paths.stepped({ align: 1 }), value: (_, n) => n === null ? "-" : bytes(n) + "/s", points: { show: false } });
        zoomByWheel(add("throughput", {
            height: 220,
            cursor: { drag: { x: true, y: false } },
            scales: { x: { time: false }, y: { range: (_, least, most) => [0, Math.max(1, most ?? 1)] } },
            axes: [timeAxis(), axis({ size: 170, values: (_, splits) => splits.map((n) => bytes(n) + "/s") })],
            series: [{ label: "time", value: (_, ms) => ms === null ? "-" : milliseconds(ms) }, line("host to device", "--device"), line("device to host", "--system")],
        }, [x, to_device, to_system], true));
    };
    const makeResidency = () => {
        const map = data.residency;
        if (map.rows.length === 0) {
            byId("residency").replaceWith(none("The recording has no looks at memory: 'hmmctl record' makes them."));
            return;
        }
        const key = (name, text) => {
            const box = element("span");
            box.className = "key";
            box.style.background = `var(${name})`;
            byId("residency-legend").append(box, text);
        };
        key("--device", "on the device");
        key("--system", "in system memory");
        key("--evict", "some pages here, some there");
        const sideOf = (span) => span[3] === 0 ? "--system" : span[4] === 0 ? "--device" : "--evict";
        const count = map.rows.length;
        const draw = (plot) => {
            const context = plot.ctx;
            const { left, top, width: wide, height: high } = plot.bbox;
            const { min, max } = plot.scales.x;
            const x = (ms) => left + ((ms - min) / (max - min)) * wide;
            const y = (row) => top + ((plot.scales.y.max - row) / (plot.scales.y.max - plot.scales.y.min)) * high;
            context.save();
            context.beginPath();
            context.rect(left, top, wide, high);
            context.clip();
            const colours = {};
            for (const span of map.spans) {
                const [row, start, end, device, system, huge] = span;
                if (end < min || start > max || device + system === 0) continue;
                const [above, below] = [y(row + 1), y(row)];
                if (below < top || above > top + high) continue;
                const name = sideOf(span);
                context.globalAlpha = huge ? 1 : 0.55;
                context.fillStyle = colours[name] ??= style(name);
                context.fillRect(x(start), above, Math.max(1, x(end) - x(start)), Math.max(1, below - above - (below - above > 4 ? 1 : 0)));
            }
            context.restore();
        };
        let show = () => {};
        const label = (row) => map.rows[row] === undefined ? "" : `${map.rows[row].address} (${map.rows[row].pid})`;
        const plot = add("residency", {
            height: Math.min(700, Math.max(200, 60 + count * 6)),
            legend: { show: false },
            cursor: { points: { show: false }, drag: { x: true, y: true, uni: 30 } },
            scales: { x: { time: false }, y: { auto: false, min: 0, max: count, range: (_, min, max) => min === null || max === null || max - min < 0.5 ? [0, count] : [Math.max(0, min), Math.min(count, max)] } },
            axes: [timeAxis(), axis({ size: 170, values: (_, splits) => splits.map((row) => Number.isInteger(row) ? label(row) : ""), grid: { show: false } })],
            series: [{}, { paths: () => null, points: { show: false } }],
            hooks: {
                draw: [draw],
                setCursor: [(plot) => {
                    const { left, top } = plot.cursor;
                    if (left < 0) { show("", 0, 0); return; }
                    const [at, row] = [plot.posToVal(left, "x"), Math.floor(plot.posToVal(top, "y"))];
                    const span = map.spans.find((span) => span[0] === row && span[1] <= at && span[2] >= at);
                    const where = map.rows[row];
                    show(span && where ? `${where.address} of ${where.name} (${where.pid}): ${span[3]} pages on the device, ${span[4]} in system memory${span[5] ? ", huge" : ""}` : "", left, top);
                }],
            },
        }, [[0, data.milliseconds], [0, count]], true);
        plot.over.addEventListener("dblclick", () => { plot.setScale("y", { min: 0, max: count }); });
        show = tip(plot);
        zoomByWheel(plot);
        if (map.thrashing.length > 0) {
            byId("thrashing").append(element("h3", "Blocks that changed sides most often"), table(["address", "process", "changes"], map.thrashing.map((block) => [block.address, `${block.name} (${block.pid})`, String(block.changes)])));
        }
    };
    const makeLatency = () => {
        const shown = data.latencies.filter((latency) => latency.count > 0);
        if (shown.length === 0) {
            byId("latency").replaceWith(none("No latency was recorded."));
            return;
        }
        const colours = ["--fault", "--device", "--system", "--evict", "--invalidate", "--skip"];
        add("latency", {
            height: 320,
            // The axis is logarithmic, and has no zero.
            scales: { x: { time: false, distr: 3 }, y: { range: () => [0, 100] } },
            axes: [axis({ values: (_, splits) => splits.map((ns) => ns === null || !/^10*$/.test(String(ns)) ? "" : time(ns)), space: 60 }), axis({ size: 170, values: (_, splits) => splits.map((part) => part + " %") })],
            series: [
                { label: "takes at most", value: (_, ns) => ns === null ? "-" : time(ns) },
                ...shown.map((latency, at) => ({ label: latency.name, stroke: () => style(colours[at % colours.length]), width: 2, spanGaps: true, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, part) => part === null ? "-" : part.toFixed(1) + " %" })),
            ],
        }, uPlot.join(shown.map((latency) => [latency.ns, latency.percent])), false);
        byId("percentiles").append(table(["", "count", "p50", "p90", "p99", "max"], shown.map((latency) => [latency.name, String(latency.count), ...[latency.p50, latency.p90, latency.p99, latency.max].map(time)])));
    };

    // ---- tables ----
    const makeTables = () => {
        const spread = (value, shown) => value === null ? ["-", "-", "-", "-"] : [value.total, value.average, value.minimum, value.maximum].map(shown);
        byId("summary").append(table(
            ["", "count", "failed", "bytes", "avg", "min", "max", "time", "avg", "min", "max"],
            data.summary.rows.map((row) => [row.name, String(row.count), String(row.failed), ...spread(row.bytes, bytes), ...spread(row.ns, time)])));
        const faults = items.map((item, index) => [item, index]).filter(([item]) => /fault/.test(data.kinds[item[KIND]].name));
        faults.sort((a, b) => b[0][LENGTH] - a[0][LENGTH]);
        byId("slowest").append(faults.length === 0 ? none("There was no fault.") : table(
            ["", "kind", "at", "takes", "address"],
            faults.slice(0, 20).map(([item, index]) => [linkTo(index, "show"), data.kinds[item[KIND]].name, milliseconds(item[START]), milliseconds(item[LENGTH]), field(item, "address") ?? ""])));
        const bar = (part) => {
            const made = element("span");
            made.className = "bar";
            made.style.width = `${(part * 16).toFixed(2)}rem`;
            return made;
        };
        const bars = (heads, rows, amount, cells) => {
            const most = Math.max(1, ...rows.map(amount));
            return table([...heads, ""], rows.map((row) => [...cells(row), bar(amount(row) / most)]));
        };
        byId("skipped").append(data.skipped.length === 0 ? none("No page was skipped.") :
            bars(["reason", "while", "pages"], data.skipped, (row) => row.pages, (row) => [row.reason, row.trigger, String(row.pages)]));
        byId("stages").append(data.times.length === 0 ? none("The recording has no times: 'hmmctl record' reads them from debugfs.") :
            bars(["step", "while", "count", "p50 <", "p99 <", "in all"], data.times, (row) => row.sum_ns, (row) => [row.step, row.trigger, String(row.count), time(row.p50_ns), time(row.p99_ns), time(row.sum_ns)]));
        const counters = Object.entries(data.counters).filter(([, count]) => count > 0);
        byId("counters").append(counters.length === 0 ? none("The recording has no counters.") :
            table(["counter", "grew by"], counters.map(([name, count]) => [name, /bytes/.test(name) ? bytes(count) : String(count)])));
    };

    // ---- results, and the choice among recordings ----
    const open = (number, name) => {
        const address = new URLSearchParams({ part: String(number), theme: document.documentElement.dataset.theme });
        if (name !== null) address.set("case", name);
        location.hash = address.toString();
        location.reload();
    };
    const caseNamed = (name) => items.findIndex((item) => data.kinds[item[KIND]].name === "case" && field(item, "name") === name);
    const showResult = (row) => {
        if (row.part !== part) { open(row.part, row.case); return; }
        const found = row.case === null ? -1 : caseNamed(row.case);
        if (found >= 0) goTo(found); else byId("timeline").scrollIntoView({ block: "nearest" });
    };
    const makeResults = () => {
        const { heads, rows } = contents.results;
        byId("results").hidden = false;
        let shown = "";
        const states = [["", "all"], ["bad", "bad"], ["other", "neither"], ["good", "good"]];
        const buttons = states.map(([state, name]) => {
            const count = rows.filter((row) => state === "" || row.state === state).length;
            const made = element("button", `${name} ${count}`);
            made.type = "button";
            made.addEventListener("click", () => { shown = state; fill(); });
            byId("result-states").append(made);
            return [state, made];
        });
        const cells = (row) => {
            const [first, ...others] = row.cells;
            if (row.text === "") return [first, ...others];
            return [element("details", null, element("summary", first), element("pre", row.text)), ...others];
        };
        const fill = () => {
            for (const [state, button] of buttons) button.setAttribute("aria-pressed", String(state === shown));
            const chosen = rows.filter((row) => shown === "" || row.state === shown);
            const links = rows.some((row) => row.part !== null);
            const made = table(links ? [...heads, ""] : heads, chosen.map((row) => {
                const all = cells(row);
                if (!links) return all;
                if (row.part === null) return [...all, ""];
                const link = element("button", "show");
                link.type = "button";
                link.addEventListener("click", () => showResult(row));
                return [...all, link];
            }));
            made.querySelectorAll("tbody tr").forEach((line, at) => { line.className = chosen[at].state; });
            byId("result-table").replaceChildren(chosen.length === 0 ? none("There is no such result.") : made);
        };
        fill();
    };
    const makeChoice = () => {
        const choice = byId("part");
        choice.hidden = false;
        contents.parts.forEach((name, number) => {
            const made = element("option", name);
            made.value = String(number);
            made.selected = number === part;
            choice.append(made);
        });
        choice.addEventListener("change", () => open(Number(choice.value), null));
    };

    // ---- all of it ----
    const setTheme = (name) => {
        document.documentElement.dataset.theme = name;
        for (const chart of charts) chart.plot.redraw(true, true);
    };
    const isDark = wanted.has("theme") ? wanted.get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    setTheme(isDark ? "dark" : "light");
    byId("theme").addEventListener("click", () => { setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); });
    const what = [contents.title, data.command];
    if (hasRecording) what.push(`${items.length} events in ${milliseconds(data.milliseconds)}`);
    if (data.clock_us !== null) what.push(`clocks of guest and host agree within ${time(data.clock_us * 1000)}`);
    if (data.clock_rate !== null && Math.abs(data.clock_rate - 1) > 0.01) {
        what.push(`in a second of the guest, ${time(data.clock_rate * 1e9)} of the host pass: latencies of the guest and of the device cannot be compared`);
    }
    if (data.lost > 0) what.push(`the kernel had no room for ${data.lost} events: the picture lacks them`);
    byId("what").textContent = what.filter((text) => text !== "").join("; ");
    if (contents.results !== null) makeResults();
    if (contents.parts.length > 1) makeChoice();
    let timeline = null;
    if (hasRecording) {
        makeTables();
        timeline = makeTimeline();
        select(-1);
        makeThroughput();
        makeResidency();
        makeLatency();
        const asked = wanted.has("case") ? caseNamed(wanted.get("case")) : -1;
        if (asked >= 0) goTo(asked);
    } else {
        byId("recording").replaceChildren(none("Nothing was recorded: no guest with the driver ran."));
    }
    addEventListener("resize", () => {
        for (const chart of charts) chart.plot.setSize({ width: width(chart.id), height: chart.plot.height });
    });
    // What tests ask for.
    window.report = {
        range: () => timeline === null ? [0, 0] : [timeline.scales.x.min, timeline.scales.x.max],
        ranges: () => charts.filter((chart) => chart.isTime).map((chart) => [chart.plot.scales.x.min, chart.plot.scales.x.max]),
        selected: () => selected,
        items: items.length,
        parts: contents.parts.length,
        part,
        results: contents.results === null ? 0 : contents.results.rows.length,
        /// Milliseconds that the timeline took to be drawn last.
        drawing: () => drawing,
        charts: () => charts.map((chart) => chart.id),
    };
})();
