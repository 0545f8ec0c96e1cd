// What `egg bench` measures, one short window at a time: a kernel's loop over prepared buffers, on the calling thread or on
// all workers at once, with wall and CPU time. Not the statistics: src/bench/windows.ts collects many windows.
// Read next: int8/ops.zig (the kernels), src/bench/int8.ts and float.ts (which shapes are measured).
const std = @import("std");
const float_ops = @import("float/ops.zig");
const layout = @import("int8/layout.zig");
const Limit = @import("float/peak.zig").Limit;
const ops = @import("int8/ops.zig");
const os = @import("os.zig");
const Model = @import("int8/model.zig").Model;
const Pool = @import("pool.zig").Pool;
const Rule = @import("int8/rule.zig").Rule;

const pair_lanes = layout.pair_lanes;

/// The numbers are part of the ABI (src/bench/windows.ts).
pub const What = enum(u32) {
    /// The tier's multiply-add on registers alone. Work: multiply-adds.
    peak = 0,
    /// A chain of additions, each waiting for the one before: the clock. Work: additions.
    clock = 1,
    /// Reading `kib` of memory a thread over and over. Work: bytes.
    read = 2,
    /// A perturbed matrix product, a panel at a time. Work: multiply-adds of the matrix alone.
    matmul = 3,
    /// The noise of one matrix for one group at a time. Work: values.
    noise = 4,
    /// The update of a model's matrices of one shape, a block of rows at a time, on the calling thread. Work: multiply-adds.
    update = 5,
    /// The tier's f32 multiply-add on registers alone. Work: multiplications and additions.
    multiply_add = 6,
    /// The same for pairs of bf16; no work where the tier has no such instruction.
    dot_bf16 = 7,
    /// One array of f32 to another, and two to a third, `kib` of memory a thread in all. Work: bytes read and written.
    scale = 8,
    add = 9,
};

pub const Shape = struct {
    what: What,
    /// Of the matrix.
    rows: u32,
    cols: u32,
    /// Groups of 16 pairs: of a panel (matmul), made in turn (noise), of the population (update).
    groups: u32,
    /// Independent panels, taken in turn.
    panels: u32,
    /// Of the model whose matrices are updated.
    hidden: u32,
    layers: u32,
    kib: u32,
};

pub const Window = struct { seconds: f64, cpu_seconds: f64, work: f64 };

/// Memory is read in pieces of this size, so that a window can be short.
const read_piece = 64 << 10;
/// Multiply-add rounds, or additions, of one repeat.
const rounds = 1000;
/// The preset's own.
const perturb_shift = 8;
const threshold = 160;

pub const Bench = struct {
    shape: Shape,
    kernels: *const ops.Table,
    floats: *const float_ops.Table,
    pool: *Pool,
    /// Weights of the matrix (matmul); the model and its population's noise (update).
    weights: []align(64) i8 = &.{},
    offsets: []align(64) i32 = &.{},
    model: ?*Model = null,
    noise: []align(64) u8 = &.{},
    fitness: []align(64) i8 = &.{},
    blocks: []Block = &.{},
    /// One a worker.
    lanes: []Lane,
    repeats: u32 = 0,

    const Block = struct { matrix: u32, row: u32, rows: u32 };

    /// What a thread has of its own, and what it did in the window.
    const Lane = struct {
        memory: []align(64) u8 = &.{},
        next: u32 = 0,
        begun: u64 align(std.atomic.cache_line) = 0,
        ended: u64 = 0,
        cpu: u64 = 0,
        work: u64 = 0,
        sink: u32 = 0,
    };

    pub fn init(bench: *Bench, shape: Shape, kernels: *const ops.Table, floats: *const float_ops.Table, pool: *Pool) error{ OutOfMemory, BadShape }!void {
        bench.* = .{ .shape = shape, .kernels = kernels, .floats = floats, .pool = pool, .lanes = &.{} };
        errdefer bench.deinit();
        if (shape.what == .matmul) try bench.initMatmul();
        if (shape.what == .update) try bench.initUpdate();
        const lanes = try std.heap.page_allocator.alloc(Lane, pool.workers.len);
        for (lanes) |*lane| lane.* = .{};
        bench.lanes = lanes;
        for (lanes) |*lane| {
            lane.memory = try os.allocateLarge(u8, bench.laneBytes());
            @memset(lane.memory, 1); // as f32: 2.4e-38, a normal number
            if (shape.what == .matmul) for (0..shape.panels) |i| bench.fillPanel(lane.memory, i);
        }
    }

    pub fn deinit(bench: *Bench) void {
        for (bench.lanes) |lane| os.free(lane.memory);
        std.heap.page_allocator.free(bench.lanes);
        inline for (.{ "weights", "offsets", "noise", "fitness" }) |name| os.free(@field(bench, name));
        std.heap.page_allocator.free(bench.blocks);
        if (bench.model) |model| {
            model.deinit();
            std.heap.page_allocator.destroy(model);
        }
    }

    fn initMatmul(bench: *Bench) error{OutOfMemory}!void {
        const shape = bench.shape;
        bench.weights = try os.allocate(i8, @as(usize, shape.rows) * shape.cols);
        bench.offsets = try os.allocate(i32, shape.rows);
        fillNoise(bench.weights);
        for (bench.offsets, 0..) |*offset, r| {
            var sum: i32 = 0;
            for (bench.weights[r * shape.cols ..][0..shape.cols]) |w| sum += w;
            offset.* = -@as(i32, @intCast(bench.kernels.bias)) * sum;
        }
    }

    /// A model as it is trained, with the noise of its population: the update's memory traffic is part of its speed.
    fn initUpdate(bench: *Bench) error{ OutOfMemory, BadShape }!void {
        const gpa = std.heap.page_allocator;
        const shape = bench.shape;
        const model = try gpa.create(Model);
        model.init(.{ .rule = .egg_c, .layers = shape.layers, .hidden = shape.hidden, .vocabulary = 256 }, bench.kernels.bias) catch |err| {
            gpa.destroy(model);
            return err;
        };
        bench.model = model;
        fillNoise(model.weights);
        for (0..model.tensors.len) |i| model.sumRows(i);
        bench.noise = try os.allocate(u8, shape.groups * model.noise_bytes);
        bench.fitness = try os.allocate(i8, shape.groups * pair_lanes);
        fillNoise(bench.fitness);
        for (bench.fitness) |*fitness| fitness.* = std.math.sign(fitness.*);
        var blocks: std.ArrayList(Block) = .empty;
        errdefer blocks.deinit(gpa);
        for (model.matrices, 0..) |matrix, i| {
            for (0..shape.groups) |group| bench.makeNoise(matrix.rows, matrix.cols, bench.noise.ptr + group * model.noise_bytes + matrix.noise_a, @intCast(group));
            if (matrix.rows != shape.rows or matrix.cols != shape.cols) continue;
            var row: u32 = 0;
            while (row < matrix.rows) : (row += ops.update_rows) {
                try blocks.append(gpa, .{ .matrix = @intCast(i), .row = row, .rows = @min(ops.update_rows, matrix.rows - row) });
            }
        }
        if (blocks.items.len == 0) return error.BadShape;
        bench.blocks = try blocks.toOwnedSlice(gpa);
    }

    fn laneBytes(bench: *const Bench) usize {
        const shape = bench.shape;
        return switch (shape.what) {
            .peak, .clock, .multiply_add, .dot_bf16 => 0,
            .read, .scale, .add => @max(layout.alignUp(@as(usize, shape.kib) << 10, read_piece), 3 * read_piece),
            .matmul => shape.panels * Panel.of(shape).bytes + ops.matmulScratchBytes(shape.cols, shape.groups),
            .noise => shape.groups * noiseBytes(shape),
            .update => ops.update_scratch_bytes,
        };
    }

    /// Where one panel's buffers lie, from its begin.
    const Panel = struct {
        a: usize,
        dots: usize,
        out: usize,
        bytes: usize,

        fn of(shape: Shape) Panel {
            const a = layout.activationBytes(shape.cols, shape.groups);
            const dots = a + layout.alignUp(@as(usize, shape.groups) * shape.rows * pair_lanes, 64);
            const out = dots + @as(usize, shape.groups) * layout.group_lanes * @sizeOf(i32);
            return .{ .a = a, .dots = dots, .out = out, .bytes = out + layout.activationBytes(shape.rows, shape.groups) };
        }
    };

    fn noiseBytes(shape: Shape) usize {
        return (@as(usize, shape.rows) + shape.cols) * pair_lanes + pair_lanes * @sizeOf(i32);
    }

    fn fillPanel(bench: *const Bench, memory: []u8, index: usize) void {
        const panel: Panel = .of(bench.shape);
        const bytes = memory[index * panel.bytes ..][0..panel.bytes];
        var state: u32 = 7;
        for (bytes[0..panel.a]) |*byte| byte.* = @as(u8, @intCast((draw(&state) >> 8) % 255)) -% 127 ^ @as(u8, @intCast(bench.kernels.bias));
        fillNoise(@ptrCast(bytes[panel.a..panel.dots]));
        const dots: []align(1) i32 = @ptrCast(bytes[panel.dots..panel.out]);
        for (dots) |*dot| dot.* = @as(i32, @intCast(draw(&state) >> 16)) - 32768; // less than 16 * 127 * 31
    }

    /// One window of `repeats` pieces of work, on the calling thread or on all workers at once.
    pub fn window(bench: *Bench, repeats: u32, all_threads: bool) Window {
        bench.repeats = repeats;
        const lanes = if (all_threads) bench.lanes else bench.lanes[0..1];
        if (!all_threads) {
            bench.measure(&bench.lanes[0]);
        } else {
            bench.pool.start(.{ .context = bench, .run = run });
            while (!bench.pool.wait(1000)) {}
        }
        var begun: u64 = std.math.maxInt(u64);
        var ended: u64 = 0;
        var cpu: u64 = 0;
        var work: u64 = 0;
        for (lanes) |lane| {
            begun = @min(begun, lane.begun);
            ended = @max(ended, lane.ended);
            cpu += lane.cpu;
            work += lane.work;
        }
        return .{ .seconds = seconds(ended - begun), .cpu_seconds = seconds(cpu), .work = @floatFromInt(work) };
    }

    fn run(context: *anyopaque, worker: u32) void {
        const bench: *Bench = @ptrCast(@alignCast(context));
        // Workers wake one after the other; they begin together.
        bench.pool.barrier({}, begin);
        bench.measure(&bench.lanes[worker]);
    }

    fn begin(_: void) void {}

    fn measure(bench: *Bench, lane: *Lane) void {
        const cpu = os.threadTime();
        lane.begun = os.now();
        lane.work = 0;
        for (0..bench.repeats) |_| {
            lane.work += bench.once(lane);
            lane.next +%= 1;
        }
        lane.ended = os.now();
        lane.cpu = os.threadTime() - cpu;
    }

    /// One repeat; returns the work done.
    fn once(bench: *Bench, lane: *Lane) u64 {
        return switch (bench.shape.what) {
            .peak => bench.limit(lane, .{ .rounds = rounds, .seed = 0x01030507, .data = lane.memory.ptr, .bytes = 0, .done = 0, .sink = 0 }),
            .read => bench.limit(lane, .{
                .rounds = 0,
                .seed = 0,
                .data = lane.memory.ptr + lane.next % (lane.memory.len / read_piece) * read_piece,
                .bytes = read_piece,
                .done = 0,
                .sink = 0,
            }),
            .multiply_add, .dot_bf16, .scale, .add => bench.floatLimit(lane),
            .clock => count(&lane.sink),
            .matmul => bench.multiply(lane),
            .noise => {
                const shape = bench.shape;
                bench.makeNoise(shape.rows, shape.cols, lane.memory.ptr + lane.next % shape.groups * noiseBytes(shape), lane.next);
                return (@as(u64, shape.rows) + shape.cols) * pair_lanes;
            },
            .update => bench.updateBlock(lane),
        };
    }

    fn limit(bench: *Bench, lane: *Lane, arguments: ops.Peak) u64 {
        var op = arguments;
        bench.kernels.peak(&op);
        lane.sink ^= op.sink;
        return op.done;
    }

    fn floatLimit(bench: *Bench, lane: *Lane) u64 {
        const arrays: usize = if (bench.shape.what == .scale) 2 else 3;
        const pieces = @max(1, lane.memory.len / read_piece / arrays);
        const at = lane.memory.ptr + lane.next % pieces * read_piece;
        const array = pieces * read_piece;
        const whole: usize = if (lane.memory.len == 0) 0 else 1;
        const from: [*]f32 = @ptrCast(@alignCast(at));
        const apart = whole * array / @sizeOf(f32);
        var op: Limit = .{
            .what = @intFromEnum(bench.shape.what) - @intFromEnum(What.multiply_add),
            .rounds = rounds,
            .from = from,
            .other = from + apart,
            .to = from + apart * (arrays - 1),
            .count = read_piece / @sizeOf(f32),
            .done = 0,
            .factor = 0.999,
            .sink = 0,
        };
        bench.floats.peak(&op);
        lane.sink ^= @bitCast(op.sink);
        return op.done;
    }

    /// Additions in a chain, one a cycle on every CPU there is: the operands are in registers that the compiler knows nothing of.
    fn count(sink: *u32) u64 {
        var sum: u64 = sink.*;
        const one = opaqueRegister(1);
        for (0..rounds) |_| {
            inline for (0..16) |_| sum = opaqueRegister(sum +% one);
        }
        sink.* = @truncate(sum);
        return rounds * 16;
    }

    inline fn opaqueRegister(value: u64) u64 {
        return asm volatile (""
            : [out] "=r" (-> u64),
            : [_] "0" (value),
        );
    }

    fn multiply(bench: *Bench, lane: *Lane) u64 {
        const shape = bench.shape;
        const panel: Panel = .of(shape);
        const memory = lane.memory.ptr + lane.next % shape.panels * panel.bytes;
        bench.kernels.matmul(&.{
            .x = memory,
            .weights = bench.weights.ptr,
            .offsets = bench.offsets.ptr,
            .out = memory + panel.out,
            .rows = shape.rows,
            .cols = shape.cols,
            .groups = shape.groups,
            .shift = if (shape.cols > 1024) 9 else 8,
            .root = 1,
            .noise_max = Rule.egg_c.noiseMax(),
            .perturb_shift = perturb_shift,
            .perturbed = 1,
            .a = @ptrCast(memory + panel.a),
            .a_stride = @as(usize, shape.rows) * pair_lanes,
            .dots = @ptrCast(@alignCast(memory + panel.dots)),
            .scratch = @alignCast(lane.memory.ptr + shape.panels * panel.bytes),
            .ahead = lane.memory.ptr,
            .ahead_bytes = 0,
            .soon = lane.memory.ptr,
            .soon_bytes = 0,
        });
        return @as(u64, shape.rows) * shape.cols * shape.groups * layout.group_lanes;
    }

    fn makeNoise(bench: *Bench, rows: u32, cols: u32, out: [*]u8, seed: u32) void {
        const b = out + @as(usize, rows) * pair_lanes;
        bench.kernels.noise_fill(&.{
            .seed = seed *% pair_lanes +% 1,
            .rows = rows,
            .cols = cols,
            .a = @ptrCast(out),
            .b = @ptrCast(b),
            .b_sums = @ptrCast(@alignCast(b + @as(usize, cols) * pair_lanes)),
        });
    }

    fn updateBlock(bench: *Bench, lane: *Lane) u64 {
        const model = bench.model.?;
        const block = bench.blocks[lane.next % bench.blocks.len];
        const matrix = model.matrices[block.matrix];
        var op: ops.Update = .{
            .weights = model.weights.ptr + matrix.weights + @as(usize, block.row) * matrix.cols,
            .offsets = model.offsets.ptr + matrix.offsets + block.row,
            .a = @ptrCast(bench.noise.ptr + matrix.noise_a + @as(usize, block.row) * pair_lanes),
            .b = @ptrCast(bench.noise.ptr + matrix.noise_b),
            .noise_stride = model.noise_bytes,
            .fitness = bench.fitness.ptr,
            .scratch = lane.memory.ptr,
            .votes = undefined, // all pairs in one pass
            .rows = block.rows,
            .cols = matrix.cols,
            .groups = bench.shape.groups,
            .signs = 0,
            .bounds = .{ .above = threshold, .below = -threshold, .zero_falls = 0 },
            .first = 1,
            .last = 1,
            .changed = 0,
        };
        bench.kernels.update(&op);
        lane.sink ^= op.changed;
        return @as(u64, block.rows) * matrix.cols * bench.shape.groups * pair_lanes;
    }
};

pub fn seconds(nanoseconds: u64) f64 {
    return @as(f64, @floatFromInt(nanoseconds)) / std.time.ns_per_s;
}

/// Values of the size that weights and noise have, -31..31, from a fixed xorshift32 stream.
fn fillNoise(values: []i8) void {
    var state: u32 = 42;
    for (values) |*value| value.* = @intCast(@as(i32, @intCast((draw(&state) >> 8) % 63)) - 31);
}

fn draw(state: *u32) u32 {
    state.* ^= state.* << 13;
    state.* ^= state.* >> 17;
    state.* ^= state.* << 5;
    return state.*;
}
