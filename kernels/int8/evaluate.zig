// Clean weights over streams of text: the loss of held-out data, and the logits that generation samples from.
// Streams take the lanes that members have in training. Not part of training: only here may floats appear.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const forward = @import("forward.zig");
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
    panels: []forward.Panel,
    next_panel: Counter align(std.atomic.cache_line),
    done: Counter align(std.atomic.cache_line),

    /// Memory that `init` will take besides the model, in bytes.
    pub fn bytesNeeded(model: *const Model, streams: u32, length: u32, threads: u32) usize {
        return @as(usize, streams) * (model.shape.layers * model.shape.hidden + length + 13) +
            threads * forward.Panel.bytesNeeded(model, 1);
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
            .next_panel = .init(0),
            .done = .init(0),
        };
        errdefer evaluator.deinit();
        evaluator.states = try os.allocate(i8, @as(usize, streams) * model.shape.layers * model.shape.hidden);
        evaluator.batch = try os.allocate(u8, @as(usize, streams) * (length + 1));
        evaluator.losses = try os.allocate(i32, streams);
        evaluator.bits = try os.allocate(f64, streams);
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
        for (evaluator.panels) |*panel| panel.deinit();
        std.heap.page_allocator.free(evaluator.panels);
    }

    fn panelCount(evaluator: *const Evaluator) u32 {
        return (evaluator.streams + group_lanes - 1) / group_lanes;
    }

    /// Panel-tokens of one window.
    pub fn work(evaluator: *const Evaluator) u32 {
        return evaluator.panelCount() * evaluator.length;
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
        if (worker >= evaluator.panels.len) return;
        while (true) {
            const panel = evaluator.next_panel.fetchAdd(1, .monotonic);
            if (panel >= evaluator.panelCount()) return;
            evaluator.runPanel(&evaluator.panels[worker], panel * group_lanes);
        }
    }

    fn runPanel(evaluator: *Evaluator, panel: *forward.Panel, first: usize) void {
        const model = evaluator.model;
        const kernels = evaluator.kernels;
        const count = @min(group_lanes, evaluator.streams - first);
        const stride = evaluator.length + 1;
        const state_bytes = model.shape.layers * model.shape.hidden;
        for (0..group_lanes) |lane| {
            panel.loadState(kernels, lane, if (lane < count) evaluator.states[(first + lane) * state_bytes ..][0..state_bytes] else null);
        }
        var losses: [group_lanes]i32 align(64) = @splat(0);
        var bits: [group_lanes]f64 = @splat(0);
        var tokens: [group_lanes]u8 align(64) = @splat(0);
        var targets: [group_lanes]u8 align(64) = @splat(0);
        for (targets[0..count], first..) |*target, stream| target.* = evaluator.batch[stream * stride];
        for (0..evaluator.length) |t| {
            if (evaluator.pool.cancelled.load(.monotonic)) return;
            tokens = targets;
            for (targets[0..count], first..) |*target, stream| target.* = evaluator.batch[stream * stride + t + 1];
            panel.token(kernels, model, null, &tokens);
            kernels.loss(&.{ .logits = panel.logits, .targets = &targets, .losses = &losses, .vocabulary = model.shape.vocabulary, .groups = 1 });
            for (bits[0..count], 0..) |*sum, lane| sum.* += evaluator.exactBits(panel, lane, targets[lane]);
            _ = evaluator.done.fetchAdd(1, .release);
        }
        for (0..count) |lane| {
            panel.storeState(kernels, lane, evaluator.states[(first + lane) * state_bytes ..][0..state_bytes]);
            evaluator.losses[first + lane] = losses[lane];
            evaluator.bits[first + lane] = bits[lane];
        }
    }

    /// -log2 of the target's probability under softmax of 2^(logit/16).
    fn exactBits(evaluator: *const Evaluator, panel: *const forward.Panel, lane: usize, target: u8) f64 {
        var sum: f64 = 0;
        for (0..evaluator.model.shape.vocabulary) |v| sum += exp2_exact[evaluator.offsetLogit(panel, lane, v)];
        const logit: f64 = @floatFromInt(evaluator.offsetLogit(panel, lane, target));
        return @log2(sum) - (logit / 16.0 - 8.0);
    }

    /// The logit plus 128.
    fn offsetLogit(evaluator: *const Evaluator, panel: *const forward.Panel, lane: usize, v: usize) u8 {
        return panel.logits[((v >> 2) * group_lanes + lane) * 4 + (v & 3)] ^ @as(u8, @intCast(evaluator.kernels.bias ^ 0x80));
    }

    /// Reads `text` with the first stream on the calling thread, then leaves the next token's logits in `logits` (V).
    pub fn feed(evaluator: *Evaluator, text: []const u8, logits: []i8) void {
        const panel = &evaluator.panels[0];
        const state = evaluator.states[0 .. evaluator.model.shape.layers * evaluator.model.shape.hidden];
        for (0..group_lanes) |lane| panel.loadState(evaluator.kernels, lane, if (lane == 0) state else null);
        var tokens: [group_lanes]u8 align(64) = @splat(0);
        for (text) |token| {
            tokens[0] = token;
            panel.token(evaluator.kernels, evaluator.model, null, &tokens);
        }
        panel.storeState(evaluator.kernels, 0, state);
        for (logits, 0..) |*logit, v| logit.* = @bitCast(evaluator.offsetLogit(panel, 0, v) ^ 0x80);
    }
};
