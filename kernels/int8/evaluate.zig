// Clean weights over streams of text: the loss of held-out data, and the logits that generation samples from.
// Many streams take the lanes that members have in training, a few are read one by one. Not part of training: only here may floats appear.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const forward = @import("forward.zig");
const single = @import("stream.zig");
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
    /// One a worker; streams are read one by one where they would leave lanes or threads without work.
    readers: []Reader,
    by_stream: bool,
    next_unit: Counter align(std.atomic.cache_line),
    done: std.atomic.Value(u64) align(std.atomic.cache_line),

    const Reader = union { panel: forward.Panel, stream: single.Stream };

    /// Memory that `init` will take besides the model, in bytes.
    pub fn bytesNeeded(model: *const Model, streams: u32, length: u32, threads: u32) usize {
        return @as(usize, streams) * (model.shape.layers * model.shape.hidden + length + 13) +
            threads * @max(forward.Panel.bytesNeeded(model, 1), single.Stream.bytesNeeded(model));
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
            .readers = &.{},
            // A stream by itself costs about half as much again as its share of a full panel.
            .by_stream = 3 * streams < 2 * panelsFor(streams, pool) * group_lanes,
            .next_unit = .init(0),
            .done = .init(0),
        };
        errdefer evaluator.deinit();
        evaluator.states = try os.allocate(i8, @as(usize, streams) * model.shape.layers * model.shape.hidden);
        evaluator.batch = try os.allocate(u8, @as(usize, streams) * (length + 1));
        evaluator.losses = try os.allocate(i32, streams);
        evaluator.bits = try os.allocate(f64, streams);
        const readers = try gpa.alloc(Reader, @min(pool.workers.len, evaluator.units()));
        for (readers, 0..) |*reader, i| {
            (if (evaluator.by_stream) init: {
                reader.* = .{ .stream = undefined };
                break :init reader.stream.init(model);
            } else init: {
                reader.* = .{ .panel = undefined };
                break :init reader.panel.init(model, 1);
            }) catch |err| {
                for (readers[0..i]) |*earlier| evaluator.free(earlier);
                gpa.free(readers);
                return err;
            };
        }
        evaluator.readers = readers;
    }

    pub fn deinit(evaluator: *Evaluator) void {
        inline for (.{ "states", "batch", "losses", "bits" }) |name| os.free(@field(evaluator, name));
        for (evaluator.readers) |*reader| evaluator.free(reader);
        std.heap.page_allocator.free(evaluator.readers);
    }

    fn free(evaluator: *const Evaluator, reader: *Reader) void {
        if (evaluator.by_stream) reader.stream.deinit() else reader.panel.deinit();
    }

    /// Panels that hold the streams, at least one a worker.
    fn panelsFor(streams: u32, pool: *const Pool) u32 {
        return @max((streams + group_lanes - 1) / group_lanes, @as(u32, @intCast(pool.workers.len)));
    }

    /// Panels, or streams, of one window.
    fn units(evaluator: *const Evaluator) u32 {
        return if (evaluator.by_stream) evaluator.streams else (evaluator.streams + group_lanes - 1) / group_lanes;
    }

    /// Tokens of panels or streams of one window.
    pub fn work(evaluator: *const Evaluator) u64 {
        return @as(u64, evaluator.units()) * evaluator.length;
    }

    /// Starts reading the window in `batch`, `length` tokens a stream, from the present states.
    pub fn start(evaluator: *Evaluator, length: u32) void {
        evaluator.length = length;
        evaluator.next_unit.store(0, .monotonic);
        evaluator.done.store(0, .monotonic);
        evaluator.pool.start(.{ .context = evaluator, .run = run });
    }

    /// False if the window was cancelled: states are then half-way and must be set again.
    pub fn finish(evaluator: *const Evaluator) bool {
        return evaluator.done.load(.acquire) == evaluator.work();
    }

    fn run(context: *anyopaque, worker: u32) void {
        const evaluator: *Evaluator = @ptrCast(@alignCast(context));
        if (worker >= evaluator.readers.len) return;
        const reader = &evaluator.readers[worker];
        while (true) {
            const unit = evaluator.next_unit.fetchAdd(1, .monotonic);
            if (unit >= evaluator.units()) return;
            if (evaluator.by_stream) evaluator.runStream(&reader.stream, unit) else evaluator.runPanel(&reader.panel, unit * group_lanes);
        }
    }

    fn state(evaluator: *Evaluator, index: usize) []i8 {
        const bytes = evaluator.model.shape.layers * evaluator.model.shape.hidden;
        return evaluator.states[index * bytes ..][0..bytes];
    }

    fn runStream(evaluator: *Evaluator, reader: *single.Stream, index: usize) void {
        const model = evaluator.model;
        const kernels = evaluator.kernels;
        const text = evaluator.batch[index * (evaluator.length + 1) ..][0 .. evaluator.length + 1];
        reader.loadState(kernels, model, evaluator.state(index));
        var loss: i32 = 0;
        var bits: f64 = 0;
        var begin: usize = 0;
        while (begin < evaluator.length) : (begin += single.chunk) {
            const count = @min(single.chunk, evaluator.length - begin);
            if (!reader.read(kernels, model, null, text[begin..][0..count], &evaluator.pool.cancelled)) return;
            for (0..count) |t| {
                loss += reader.loss(kernels, model, t, text[begin + t + 1]);
                bits += evaluator.exactBits(.{ .first = reader.logits + t * ops.rowBytes(model.shape.vocabulary), .quad = 4 }, text[begin + t + 1]);
            }
            _ = evaluator.done.fetchAdd(count, .release);
        }
        reader.storeState(kernels, model, evaluator.state(index));
        evaluator.losses[index] = loss;
        evaluator.bits[index] = bits;
    }

    fn runPanel(evaluator: *Evaluator, panel: *forward.Panel, first: usize) void {
        const model = evaluator.model;
        const kernels = evaluator.kernels;
        const count = @min(group_lanes, evaluator.streams - first);
        const stride = evaluator.length + 1;
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
            kernels.loss(&.{ .logits = panel.logits, .targets = &targets, .losses = &losses, .vocabulary = model.shape.vocabulary, .groups = 1 });
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

    /// Reads `text` with the first stream on the calling thread, then leaves the next token's logits in `logits` (V).
    /// Only for evaluators of one stream.
    pub fn feed(evaluator: *Evaluator, text: []const u8, logits: []i8) void {
        const model = evaluator.model;
        const reader = &evaluator.readers[0].stream;
        const never: std.atomic.Value(bool) = .init(false);
        reader.loadState(evaluator.kernels, model, evaluator.state(0));
        var last: usize = 0;
        var begin: usize = 0;
        while (begin < text.len) : (begin += single.chunk) {
            const count = @min(single.chunk, text.len - begin);
            _ = reader.read(evaluator.kernels, model, null, text[begin..][0..count], &never);
            last = count - 1;
        }
        reader.storeState(evaluator.kernels, model, evaluator.state(0));
        const row: Logits = .{ .first = reader.logits + last * ops.rowBytes(model.shape.vocabulary), .quad = 4 };
        for (logits, 0..) |*logit, v| logit.* = @bitCast(evaluator.offsetLogit(row, v) ^ 0x80);
    }
};
