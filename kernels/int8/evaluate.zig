// Clean weights over streams of text: the loss of held-out data, and the logits that generation samples from.
// Many streams take the lanes that members have in training, a few are read by rows. Not part of training: only here may floats appear.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const forward = @import("forward.zig");
const few = @import("rows.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;

const group_lanes = layout.group_lanes;
const Counter = std.atomic.Value(u32);

/// 2^(i/16 - 8), i = logit + 128: exact softmax in units of 1/16 bit.
const exp2_exact: [256]f64 = blk: {
    @setEvalBranchQuota(100000);
    var values: [256]f64 = undefined;
    for (&values, 0..) |*value, i| value.* = @exp2(@as(f64, @floatFromInt(i)) / 16.0 - 8.0);
    break :blk values;
};

pub const Evaluator = struct {
    model: *Model,
    kernels: *const ops.Table,
    pool: *Pool,
    streams: u32,
    /// Recurrent state of every stream: [streams][layers][hidden].
    states: []align(64) i8,
    /// Bytes to read: [streams][length + 1]; grows with the longest window asked for.
    batch: []align(64) u8,
    length: u32,
    /// Sum over the window, a stream: integer loss in 1/16 bit, and exact softmax loss in bits.
    losses: []align(64) i32,
    bits: []align(64) f64,
    /// One a worker, or none.
    panels: []forward.Panel,
    /// Instead of panels, where there are few streams.
    rows: ?few.Rows,
    /// All threads work on the rows, not one.
    team: bool,
    next_panel: Counter align(std.atomic.cache_line),
    done: std.atomic.Value(u64) align(std.atomic.cache_line),

    /// Memory that `init` will take besides the model, in bytes.
    pub fn bytesNeeded(model: *const Model, streams: u32, length: u32, threads: u32) usize {
        return @as(usize, streams) * (model.shape.layers * model.shape.hidden + length + 13) +
            if (rowsPlan(model, streams, threads) != null) few.Rows.bytesNeeded(model, streams) else threads * forward.Panel.bytesNeeded(model, 1);
    }

    pub fn init(evaluator: *Evaluator, model: *Model, kernels: *const ops.Table, pool: *Pool, streams: u32, length: u32) error{OutOfMemory}!void {
        const gpa = std.heap.page_allocator;
        evaluator.* = .{
            .model = model,
            .kernels = kernels,
            .pool = pool,
            .streams = streams,
            .length = length,
            .states = &.{},
            .batch = &.{},
            .losses = &.{},
            .bits = &.{},
            .panels = &.{},
            .rows = null,
            .team = false,
            .next_panel = .init(0),
            .done = .init(0),
        };
        errdefer evaluator.deinit();
        evaluator.states = try os.allocate(i8, @as(usize, streams) * model.shape.layers * model.shape.hidden);
        evaluator.batch = try os.allocate(u8, @as(usize, streams) * (length + 1));
        evaluator.losses = try os.allocate(i32, streams);
        evaluator.bits = try os.allocate(f64, streams);
        if (rowsPlan(model, streams, @intCast(pool.workers.len))) |plan| {
            var rows: few.Rows = undefined;
            try rows.init(model, streams);
            evaluator.rows = rows;
            evaluator.team = plan.team;
            return;
        }
        const panels = try gpa.alloc(forward.Panel, @min(pool.workers.len, evaluator.panelCount()));
        for (panels, 0..) |*panel, i| {
            panel.init(model, 1) catch |err| {
                for (panels[0..i]) |*earlier| earlier.deinit();
                gpa.free(panels);
                return err;
            };
        }
        evaluator.panels = panels;
    }

    pub fn deinit(evaluator: *Evaluator) void {
        inline for (.{ "states", "batch", "losses", "bits" }) |name| os.free(@field(evaluator, name));
        if (evaluator.rows) |*rows| rows.deinit();
        for (evaluator.panels) |*panel| panel.deinit();
        std.heap.page_allocator.free(evaluator.panels);
    }

    /// How few streams are read by rows, all as one set; null for panels.
    fn rowsPlan(model: *const Model, streams: u32, threads: u32) @TypeOf(few.plan(0, 1, 1, 16, 1)) {
        if (streams == 1) return few.plan(1, 1, 1 << 20, model.shape.hidden, threads); // `feed` reads rows
        return few.plan(streams, streams, group_lanes, model.shape.hidden, threads);
    }

    fn panelCount(evaluator: *const Evaluator) u32 {
        return (evaluator.streams + group_lanes - 1) / group_lanes;
    }

    /// Tokens of panels or streams of one window.
    pub fn work(evaluator: *const Evaluator) u64 {
        const units = if (evaluator.rows != null) evaluator.streams else evaluator.panelCount();
        return @as(u64, units) * evaluator.length;
    }

    /// Starts reading the window in `batch`, `length` tokens a stream, from the present states.
    pub fn start(evaluator: *Evaluator, length: u32) void {
        evaluator.length = length;
        evaluator.next_panel.store(0, .monotonic);
        evaluator.done.store(0, .monotonic);
        evaluator.pool.start(.{ .context = evaluator, .run = run });
    }

    /// False if the window was cancelled: states are then half-way and must be set again.
    pub fn finish(evaluator: *const Evaluator) bool {
        return evaluator.done.load(.acquire) == evaluator.work();
    }

    fn run(context: *anyopaque, worker: u32) void {
        const evaluator: *Evaluator = @ptrCast(@alignCast(context));
        if (evaluator.rows) |*rows| return evaluator.runRows(rows, worker);
        if (worker >= evaluator.panels.len) return;
        while (true) {
            const panel = evaluator.next_panel.fetchAdd(1, .monotonic);
            if (panel >= evaluator.panelCount()) return;
            evaluator.runPanel(&evaluator.panels[worker], panel * group_lanes);
        }
    }

    fn state(evaluator: *Evaluator, index: usize) []i8 {
        const bytes = evaluator.model.shape.layers * evaluator.model.shape.hidden;
        return evaluator.states[index * bytes ..][0..bytes];
    }

    fn runRows(evaluator: *Evaluator, rows: *few.Rows, index: u32) void {
        const model = evaluator.model;
        const kernels = evaluator.kernels;
        const stride = evaluator.length + 1;
        if (!evaluator.team and index != 0) return;
        const team: few.Team = if (evaluator.team) .{ .pool = evaluator.pool, .index = index, .count = @intCast(evaluator.pool.workers.len) } else .solo;
        if (index == 0) {
            rows.loadStates(kernels, model, evaluator.states);
            @memset(evaluator.losses, 0);
            @memset(evaluator.bits, 0);
        }
        if (evaluator.team) evaluator.pool.barrier({}, nothing);
        var starts: [few.members_max]usize = undefined;
        var begin: u32 = 0;
        while (begin < evaluator.length) : (begin += rows.chunk) {
            const count = @min(rows.chunk, evaluator.length - begin);
            for (starts[0..evaluator.streams], 0..) |*start_at, s| start_at.* = s * stride + begin;
            if (!rows.read(team, kernels, model, null, evaluator.batch, starts[0..evaluator.streams], count, &evaluator.pool.cancelled)) return;
            if (index != 0) continue;
            for (0..count) |t| for (0..evaluator.streams) |s| {
                const target = evaluator.batch[starts[s] + t + 1];
                evaluator.losses[s] += rows.lossOf(kernels, model, t, s, target);
                evaluator.bits[s] += evaluator.exactBits(.{ .first = rows.logitsOf(model, t, s), .quad = 4 }, target);
            };
            _ = evaluator.done.fetchAdd(count * evaluator.streams, .release);
        }
        if (index == 0) rows.storeStates(kernels, model, evaluator.states);
    }

    fn nothing(_: void) void {}

    fn runPanel(evaluator: *Evaluator, panel: *forward.Panel, first: usize) void {
        const model = evaluator.model;
        const kernels = evaluator.kernels;
        const count = @min(group_lanes, evaluator.streams - first);
        const stride = evaluator.length + 1;
        panel.perturbVectors(kernels, model, null);
        for (0..group_lanes) |lane| {
            panel.loadState(kernels, lane, if (lane < count) evaluator.state(first + lane) else null);
        }
        var losses: [group_lanes]i32 align(64) = @splat(0);
        var bits: [group_lanes]f64 = @splat(0);
        var tokens: [group_lanes]u8 align(64) = @splat(0);
        var targets: [group_lanes]u8 align(64) = @splat(0);
        for (targets[0..count], first..) |*target, stream| target.* = evaluator.batch[stream * stride];
        for (0..evaluator.length) |t| {
            tokens = targets;
            for (targets[0..count], first..) |*target, stream| target.* = evaluator.batch[stream * stride + t + 1];
            if (!panel.token(kernels, model, null, &tokens, &evaluator.pool.cancelled)) return;
            kernels.operators(model.shape.rule).loss(&.{ .logits = panel.logits, .targets = &targets, .losses = &losses, .vocabulary = model.shape.vocabulary, .groups = 1 });
            for (bits[0..count], 0..) |*sum, lane| {
                sum.* += evaluator.exactBits(.{ .first = panel.logits + lane * 4, .quad = group_lanes * 4 }, targets[lane]);
            }
            _ = evaluator.done.fetchAdd(1, .release);
        }
        for (0..count) |lane| {
            panel.storeState(kernels, lane, evaluator.state(first + lane));
            evaluator.losses[first + lane] = losses[lane];
            evaluator.bits[first + lane] = bits[lane];
        }
    }

    /// One stream's logits: four lie together, `quad` bytes from one four to the next.
    const Logits = struct { first: [*]const u8, quad: usize };

    /// -log2 of the target's probability under softmax of 2^(logit/16).
    fn exactBits(evaluator: *const Evaluator, logits: Logits, target: u8) f64 {
        var sum: f64 = 0;
        for (0..evaluator.model.shape.vocabulary) |v| sum += exp2_exact[evaluator.offsetLogit(logits, v)];
        const logit: f64 = @floatFromInt(evaluator.offsetLogit(logits, target));
        return @log2(sum) - (logit / 16.0 - 8.0);
    }

    /// The logit plus 128.
    fn offsetLogit(evaluator: *const Evaluator, logits: Logits, v: usize) u8 {
        return logits.first[(v >> 2) * logits.quad + (v & 3)] ^ @as(u8, @intCast(evaluator.kernels.bias ^ 0x80));
    }

    /// Reads `text` with the one stream on the calling thread, then leaves the next token's logits in `logits` (V).
    pub fn feed(evaluator: *Evaluator, text: []const u8, logits: []i8) void {
        const model = evaluator.model;
        const rows = &evaluator.rows.?;
        const never: std.atomic.Value(bool) = .init(false);
        rows.loadStates(evaluator.kernels, model, evaluator.states);
        var last: usize = 0;
        var begin: usize = 0;
        while (begin < text.len) : (begin += rows.chunk) {
            const count: u32 = @intCast(@min(rows.chunk, text.len - begin));
            _ = rows.read(.solo, evaluator.kernels, model, null, text, &.{begin}, count, &never);
            last = count - 1;
        }
        rows.storeStates(evaluator.kernels, model, evaluator.states);
        const row: Logits = .{ .first = rows.logitsOf(model, last, 0), .quad = 4 };
        for (logits, 0..) |*logit, v| logit.* = @bitCast(evaluator.offsetLogit(row, v) ^ 0x80);
    }
};
