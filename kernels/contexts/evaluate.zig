// The context model's loss on text, and the logits behind a context: exact softmax, clean weights. Floats only here.
// Not training (eggroll.zig). The sum does not depend on the number of threads: pieces of the text are added in their order.
const std = @import("std");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;

/// Positions that one worker reads in one go.
const piece = 1024;

pub const Evaluator = struct {
    model: *const Model,
    pool: *Pool,
    /// The text, its first context before it.
    text: []const u8,
    /// Added to a position's bits where the byte is one that the model has no token of its own for; see `other`.
    penalty: f64,
    other: ?u8,
    bits: []f64,
    next_piece: std.atomic.Value(u32),
    done: std.atomic.Value(u32),

    /// Starts reading `text[order..]`; wait for the pool, then call `finish`. `bits` has room for `pieces(text)`.
    pub fn start(evaluator: *Evaluator) void {
        evaluator.next_piece.store(0, .monotonic);
        evaluator.done.store(0, .monotonic);
        evaluator.pool.start(.{ .context = evaluator, .run = run });
    }

    pub fn pieces(model: *const Model, bytes: usize) usize {
        return (bytes - model.shape.order + piece - 1) / piece;
    }

    pub fn work(evaluator: *const Evaluator) u64 {
        return evaluator.bits.len;
    }

    /// Sum of the bits; null where it was cancelled.
    pub fn finish(evaluator: *Evaluator) ?f64 {
        if (evaluator.done.load(.acquire) != evaluator.bits.len) return null;
        var sum: f64 = 0;
        for (evaluator.bits) |bits| sum += bits;
        return sum;
    }

    fn run(context: *anyopaque, _: u32) void {
        const evaluator: *Evaluator = @ptrCast(@alignCast(context));
        const model = evaluator.model;
        while (!evaluator.pool.cancelled.load(.monotonic)) {
            const index = evaluator.next_piece.fetchAdd(1, .monotonic);
            if (index >= evaluator.bits.len) return;
            const first = model.shape.order + index * piece;
            const last = @min(first + piece, evaluator.text.len);
            var sum: f64 = 0;
            for (first..last) |i| {
                var logits: [ops.max_vocabulary]i32 = undefined;
                sums(model, evaluator.text, i, &logits);
                const target = model.tokens[evaluator.text[i]];
                sum += logSum(logits[0..model.shape.vocabulary]) - @as(f64, @floatFromInt(logits[target])) / 16;
                if (evaluator.other == target) sum += evaluator.penalty;
            }
            evaluator.bits[index] = sum;
            _ = evaluator.done.fetchAdd(1, .release);
        }
    }
};

/// The logits behind the context that ends before `text[end]`, in 1/16 bit.
pub fn sums(model: *const Model, text: []const u8, end: usize, logits: *[ops.max_vocabulary]i32) void {
    const rows = model.rowsAt(text, end);
    for (logits[0..model.shape.vocabulary], 0..) |*logit, v| {
        logit.* = 0;
        for (rows[0..model.shape.order]) |row| logit.* += model.weights[row * model.width + v];
    }
}

/// 2^(-n / 16); what lies below 2^-64 of the largest adds nothing that 64-bit floats hold.
const powers: [1024]f64 = blk: {
    @setEvalBranchQuota(100000);
    var table: [1024]f64 = undefined;
    for (&table, 0..) |*power, n| power.* = @exp2(-@as(f64, @floatFromInt(n)) / 16);
    break :blk table;
};

/// log2 of the sum of 2^(logit / 16).
fn logSum(logits: []const i32) f64 {
    const top = std.mem.max(i32, logits);
    var sum: f64 = 0;
    for (logits) |logit| {
        const below: usize = @intCast(top - logit);
        if (below < powers.len) sum += powers[below];
    }
    return @log2(sum) + @as(f64, @floatFromInt(top)) / 16;
}
