// The forward pass of a few members (or clean streams) without lanes: what is too little for a panel (forward.zig). A chunk
// of time goes through a layer at once, so that all matrices but the two recurrent ones see many rows; a team of threads
// may split every matrix by rows. Same arithmetic, same bits. Used by eggroll.zig and evaluate.zig.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const model_file = @import("model.zig");
const Model = model_file.Model;
const Pool = @import("../pool.zig").Pool;

/// Rows that go through a matrix at once: enough to pay for reading the weights, few enough to stay in the L2 cache.
const rows_max = 64;
/// Most members (or streams) side by side.
pub const members_max = 2 * rows_max;

/// Whether splitting matrices over a team pays for its barriers, and no thread has to wait for a core.
fn teamPays(hidden: u32, threads: u32) bool {
    return hidden >= 256 and threads <= std.Thread.getCpuCount() catch 1;
}

/// How `members` (or streams; `unit` of them stay together) would be run by rows on `threads` threads: as many sets as
/// work by themselves, or one set for a team. Null where panels of `lanes` lanes are faster.
pub fn plan(members: u32, unit: u32, lanes: u32, hidden: u32, threads: u32) ?struct { sets: u32, team: bool } {
    if (members > members_max) return null;
    const units = members / unit;
    const team = units < threads and teamPays(hidden, threads);
    const sets = if (team) 1 else @min(units, threads);
    // In MACs of a full panel: a MAC by rows costs 1 + 320 / hidden (64 inputs a step, and a fixed price for adding up lanes
    // at the end), a team three tenths more for its barriers.
    const a_set: u64 = (units + sets - 1) / sets * unit;
    const by_rows = a_set * (hidden + 320) * @as(u64, if (team) 13 else 10);
    const panels: u64 = (members + lanes - 1) / lanes;
    const by_panels = (panels + threads - 1) / threads * lanes * hidden * @as(u64, if (team) threads else 1) * 10;
    return if (by_rows < by_panels) .{ .sets = sets, .team = team } else null;
}

/// The threads that work on one set of rows, in step.
pub const Team = struct {
    /// Null: one thread by itself.
    pool: ?*Pool,
    index: u32,
    count: u32,

    pub const solo: Team = .{ .pool = null, .index = 0, .count = 1 };

    fn sync(team: Team) void {
        const nothing = struct {
            fn nothing(_: void) void {}
        }.nothing;
        if (team.count > 1) team.pool.?.barrier({}, nothing);
    }

    /// This thread's part of `n` things, cut at multiples of `unit`.
    fn part(team: Team, n: usize, unit: usize) struct { from: usize, to: usize } {
        const units = (n + unit - 1) / unit;
        return .{ .from = @min(n, units * team.index / team.count * unit), .to = @min(n, units * (team.index + 1) / team.count * unit) };
    }
};

/// The noise of all pairs, taken out of the groups' blocks: A and B of each matrix in a row.
pub const Noise = struct {
    memory: []align(64) i8,
    /// [matrices][pairs]: sums of B over its inputs.
    b_sums: []align(64) i32,
    pairs: u32,
    /// Bytes of one pair.
    stride: usize,
    perturb_shift: u32,

    pub fn bytesNeeded(model: *const Model, pairs: u32) usize {
        return pairs * (strideOf(model) + model.matrices.len * @sizeOf(i32));
    }

    fn strideOf(model: *const Model) usize {
        var bytes: usize = 0;
        for (model.matrices) |matrix| bytes += ops.rowBytes(matrix.rows) + ops.rowBytes(matrix.cols);
        return bytes;
    }

    pub fn init(noise: *Noise, model: *const Model, pairs: u32, perturb_shift: u32) error{OutOfMemory}!void {
        const memory = try os.allocate(i8, pairs * strideOf(model)); // zeroed: B is read past its end
        errdefer os.free(memory);
        noise.* = .{
            .memory = memory,
            .b_sums = try os.allocate(i32, model.matrices.len * pairs),
            .pairs = pairs,
            .stride = strideOf(model),
            .perturb_shift = perturb_shift,
        };
    }

    pub fn deinit(noise: *Noise) void {
        os.free(noise.memory);
        os.free(noise.b_sums);
    }

    /// Copies one pair out of its group's block.
    pub fn take(noise: *Noise, model: *const Model, pair: usize, block: [*]const u8) void {
        const lane = pair % layout.pair_lanes;
        var at = pair * noise.stride;
        for (model.matrices, 0..) |matrix, i| {
            const a: [*]const i8 = @ptrCast(block + matrix.noise_a);
            for (noise.memory[at..][0..matrix.rows], 0..) |*value, r| value.* = a[r * layout.pair_lanes + lane];
            at += ops.rowBytes(matrix.rows);
            const b: [*]const [4]i8 = @ptrCast(block + matrix.noise_b);
            for (0..matrix.cols / 4) |q| noise.memory[at + 4 * q ..][0..4].* = b[q * layout.pair_lanes + lane];
            at += ops.rowBytes(matrix.cols);
            const sums: [*]const i32 = @ptrCast(@alignCast(block + matrix.noise_b_sums));
            noise.b_sums[i * noise.pairs + pair] = sums[lane];
        }
    }
};

/// The noise of pairs first .. first + count: those of one set of rows.
pub const NoiseOf = struct { noise: *const Noise, first: u32, count: u32 };

pub const Rows = struct {
    /// Members or streams side by side.
    members: u32,
    /// Tokens of one chunk.
    chunk: u32,
    memory: []align(64) u8,
    x: [*]u8, // [chunk][members][H]
    norm: [*]u8, // [chunk][members][H]
    a: [*]u8, // [chunk][members][H]
    b: [*]u8, // [chunk][members][H]
    expanded: [*]u8, // [chunk][members][4H]
    logits: [*]u8, // [chunk][members][V]
    recurrent: [*]u8, // [members][H]
    f: [*]u8, // [members][H]
    g: [*]u8, // [members][H]
    h: [*]u8, // [L][members][H]

    fn chunkOf(members: u32) u32 {
        return @max(1, rows_max / members);
    }

    pub fn bytesNeeded(model: *const Model, members: u32) usize {
        const h = ops.rowBytes(model.shape.hidden);
        const wide = 4 * h + ops.rowBytes(4 * model.shape.hidden) + ops.rowBytes(model.shape.vocabulary);
        return @as(usize, members) * (chunkOf(members) * wide + (3 + model.shape.layers) * h);
    }

    pub fn init(rows: *Rows, model: *const Model, members: u32) error{OutOfMemory}!void {
        const h = members * ops.rowBytes(model.shape.hidden);
        rows.members = members;
        rows.chunk = chunkOf(members);
        rows.memory = try os.allocate(u8, bytesNeeded(model, members)); // zeroed: bytes past the width must be raw zeros
        var rest: [*]u8 = rows.memory.ptr;
        inline for (.{ "x", "norm", "a", "b" }) |name| @field(rows, name) = take(&rest, rows.chunk * h);
        rows.expanded = take(&rest, rows.chunk * members * ops.rowBytes(4 * model.shape.hidden));
        rows.logits = take(&rest, rows.chunk * members * ops.rowBytes(model.shape.vocabulary));
        inline for (.{ "recurrent", "f", "g" }) |name| @field(rows, name) = take(&rest, h);
        rows.h = take(&rest, model.shape.layers * h);
    }

    pub fn deinit(rows: *Rows) void {
        os.free(rows.memory);
    }

    fn take(rest: *[*]u8, bytes: usize) [*]u8 {
        defer rest.* += bytes;
        return rest.*;
    }

    fn stateRow(rows: *const Rows, model: *const Model, layer: usize, member: usize) []u8 {
        const row = ops.rowBytes(model.shape.hidden);
        return rows.h[(layer * rows.members + member) * row ..][0..model.shape.hidden];
    }

    /// Sets the members' recurrent states from [members][L][H] values.
    pub fn loadStates(rows: *Rows, kernels: *const ops.Table, model: *const Model, states: []const i8) void {
        const width = model.shape.hidden;
        for (0..rows.members) |m| for (0..model.shape.layers) |l| {
            const from = states[(m * model.shape.layers + l) * width ..][0..width];
            for (rows.stateRow(model, l, m), from) |*to, value| to.* = @as(u8, @bitCast(value)) ^ @as(u8, @intCast(kernels.bias));
        };
    }

    /// Copies the members' recurrent states to [members][L][H] values.
    pub fn storeStates(rows: *const Rows, kernels: *const ops.Table, model: *const Model, states: []i8) void {
        const width = model.shape.hidden;
        for (0..rows.members) |m| for (0..model.shape.layers) |l| {
            const to = states[(m * model.shape.layers + l) * width ..][0..width];
            for (to, rows.stateRow(model, l, m)) |*value, from| value.* = @bitCast(from ^ @as(u8, @intCast(kernels.bias)));
        };
    }

    /// The logits of token t of one member, as the last `read` left them.
    pub fn logitsOf(rows: *const Rows, model: *const Model, t: usize, member: usize) [*]const u8 {
        return rows.logits + (t * rows.members + member) * ops.rowBytes(model.shape.vocabulary);
    }

    pub fn lossOf(rows: *const Rows, kernels: *const ops.Table, model: *const Model, t: usize, member: usize, target: u8) i32 {
        var op: ops.RowsLoss = .{ .logits = rows.logitsOf(model, t, member), .vocabulary = model.shape.vocabulary, .target = target, .loss = 0 };
        kernels.operators(model.shape.rule).rows_loss(&op);
        return op.loss;
    }

    /// Reads `count` <= chunk tokens of every member: member m reads text[starts[m] ..]. Moves the states on and leaves the
    /// logits. To be called by every thread of the team; all come out together. False if `cancelled` was set meanwhile:
    /// states and logits are then worthless.
    pub fn read(
        rows: *Rows,
        team: Team,
        kernels: *const ops.Table,
        model: *const Model,
        noise: ?NoiseOf,
        text: []const u8,
        starts: []const usize,
        count: u32,
        cancelled: *const std.atomic.Value(bool),
    ) bool {
        const work: Work = .{ .rows = rows, .team = team, .kernels = kernels, .model = model, .noise = noise };
        const width = model.shape.hidden;
        const row = ops.rowBytes(width);
        const all = count * rows.members;
        const embedding = model.outer(.embedding);
        const mine = team.part(all, 1);
        for (mine.from..mine.to) |j| {
            const token = text[starts[j % rows.members] + j / rows.members];
            for (rows.x[j * row ..][0..width], embedding[@as(usize, token) * width ..][0..width]) |*to, from| {
                to.* = @as(u8, @bitCast(from)) ^ @as(u8, @intCast(kernels.bias));
            }
        }
        // Nobody may give up alone: the others would wait for ever. The flag is read by one and told to all.
        for (0..model.shape.layers) |l| {
            const first = l * model_file.matrices_per_layer;
            const h = rows.h + l * rows.members * row;
            work.layerNorm(model.layer(l, .ln1), all);
            if (work.stopped(cancelled)) return false;
            work.matmul(first + 0, rows.norm, rows.a, all);
            work.matmul(first + 2, rows.norm, rows.b, all);
            for (0..count) |t| {
                if (model.shape.rule.resetsAtZero()) work.resetAtZero(h, text, starts, t);
                work.recur(l, h, t);
            }
            work.layerNorm(model.layer(l, .ln2), all);
            if (work.stopped(cancelled)) return false;
            work.matmul(first + 4, rows.norm, rows.expanded, all);
            team.sync();
            work.matmul(first + 5, rows.expanded, rows.a, all);
            team.sync();
            const bytes = team.part(all * row, 64);
            kernels.add(rows.a + bytes.from, rows.x + bytes.from, rows.x + bytes.from, bytes.to - bytes.from);
            team.sync();
        }
        work.layerNorm(model.outer(.ln_out), all);
        team.sync();
        work.matmul(model.matrices.len - 1, rows.norm, rows.logits, all);
        team.sync();
        return true;
    }
};

const Work = struct {
    rows: *Rows,
    team: Team,
    kernels: *const ops.Table,
    model: *const Model,
    noise: ?NoiseOf,

    /// Waits for the team, then tells all of it the same: whether to stop.
    fn stopped(work: Work, cancelled: *const std.atomic.Value(bool)) bool {
        if (work.team.count == 1) return cancelled.load(.monotonic);
        const pool = work.team.pool.?;
        const Ask = struct { pool: *Pool, cancelled: *const std.atomic.Value(bool) };
        pool.barrier(Ask{ .pool = pool, .cancelled = cancelled }, struct {
            fn ask(question: Ask) void {
                question.pool.verdict.store(question.cancelled.load(.monotonic), .release);
            }
        }.ask);
        return pool.verdict.load(.acquire);
    }

    fn operators(work: Work) *const ops.Operators {
        return work.kernels.operators(work.model.shape.rule);
    }

    /// Sets the state of those that read a byte 0 as token t to zero.
    fn resetAtZero(work: Work, h: [*]u8, text: []const u8, starts: []const usize, t: usize) void {
        const rows = work.rows;
        const row = ops.rowBytes(work.model.shape.hidden);
        var any = false;
        for (starts[0..rows.members]) |start| any = any or text[start + t] == 0;
        if (!any) return;
        const mine = work.team.part(work.model.shape.hidden, 16);
        for (starts[0..rows.members], 0..) |start, m| {
            if (text[start + t] == 0) @memset(h[m * row + mine.from .. m * row + mine.to], @intCast(work.kernels.bias));
        }
        work.team.sync();
    }

    /// Normalizes this thread's part of the rows of x.
    fn layerNorm(work: Work, weight: []const i8, count: usize) void {
        const row = ops.rowBytes(weight.len);
        const mine = work.team.part(count, 1);
        work.operators().rows_layer_norm(&.{
            .x = work.rows.x + mine.from * row,
            .weight = weight.ptr,
            .out = work.rows.norm + mine.from * row,
            .count = @intCast(mine.to - mine.from),
            .width = @intCast(weight.len),
        });
    }

    /// This thread's outputs of one matrix for `count` rows of x.
    fn matmul(work: Work, index: usize, x: [*]const u8, out: [*]u8, count: usize) void {
        const matrix = work.model.matrices[index];
        const mine = work.team.part(matrix.rows, 16);
        if (mine.from == mine.to) return;
        var dots: [members_max]i32 = undefined;
        var a: [*]const i8 = work.model.weights.ptr;
        if (work.noise) |of| {
            const noise = of.noise;
            a = noise.memory.ptr + of.first * noise.stride;
            for (work.model.matrices[0..index]) |earlier| a += ops.rowBytes(earlier.rows) + ops.rowBytes(earlier.cols);
            work.kernels.rows_noise_dot(&.{
                .x = x,
                .b = a + ops.rowBytes(matrix.rows),
                .b_stride = noise.stride,
                .b_sums = noise.b_sums.ptr + index * noise.pairs + of.first,
                .pairs = of.count,
                .dots = &dots,
                .count = @intCast(count),
                .cols = matrix.cols,
            });
        }
        work.kernels.rows_matmul(&.{
            .x = x,
            .weights = work.model.weights.ptr + matrix.weights + mine.from * matrix.cols,
            .offsets = work.model.offsets.ptr + matrix.offsets + mine.from,
            .out = out + mine.from,
            .out_stride = ops.rowBytes(matrix.rows),
            .count = @intCast(count),
            .rows = @intCast(mine.to - mine.from),
            .cols = matrix.cols,
            .shift = matrix.shift,
            .root = matrix.root,
            .perturb_shift = if (work.noise) |of| of.noise.perturb_shift else 0,
            .pairs = if (work.noise) |of| of.count else 0,
            .a = a + mine.from,
            .a_stride = if (work.noise) |of| of.noise.stride else 0,
            .dots = &dots,
        });
    }

    /// The recurrent part of token t: gates and state, this thread's outputs of each.
    fn recur(work: Work, l: usize, h: [*]u8, t: usize) void {
        const rows = work.rows;
        const width = work.model.shape.hidden;
        const row = ops.rowBytes(width);
        const first = l * model_file.matrices_per_layer;
        const mine = work.team.part(width, 16);
        const part: u32 = @intCast(mine.to - mine.from);
        work.matmul(first + 1, h, rows.recurrent, rows.members);
        for (0..rows.members) |m| {
            const at = m * row + mine.from;
            work.operators().row_forget_gate(&.{
                .a = rows.a + t * rows.members * row + at,
                .b = rows.recurrent + at,
                .bias = work.model.layer(l, .bf).ptr + mine.from,
                .h = h + at,
                .f = rows.f + at,
                .g = rows.g + at,
                .width = part,
                .groups = 0,
            });
        }
        work.team.sync();
        work.matmul(first + 3, rows.g, rows.recurrent, rows.members);
        for (0..rows.members) |m| {
            const at = m * row + mine.from;
            const x = rows.x + t * rows.members * row + at;
            work.operators().row_state_update(&.{
                .a = rows.b + t * rows.members * row + at,
                .b = rows.recurrent + at,
                .bias = work.model.layer(l, .bh).ptr + mine.from,
                .f = rows.f + at,
                .residual = x,
                .h = h + at,
                .out = x,
                .width = part,
                .groups = 0,
            });
        }
        work.team.sync();
    }
};
