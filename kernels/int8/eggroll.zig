// One training step of integer EGGROLL, by any rule: noise, the forward passes of the whole population, fitness, update.
// A step is one task of the pool: panels of members are shared out, one barrier, then blocks of weight rows. Populations
// that are too small for panels run by rows (rows.zig). Which way it goes never changes a result.
// What a rule does otherwise: egg_c.zig, nano_egg.zig. Data and the count of steps: src/learners/eggroll-int8.ts.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const forward = @import("forward.zig");
const few = @import("rows.zig");
const egg_c = @import("egg_c.zig");
const nano_egg = @import("nano_egg.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;

const pair_lanes = layout.pair_lanes;
const group_lanes = layout.group_lanes;
const Counter = std.atomic.Value(u32);
/// For steps that cannot be cancelled.
const never: std.atomic.Value(bool) = .init(false);

/// Noise of the whole population that is kept from the forward pass to the update; above this it is made twice.
const resident_noise_max = 256 << 20;
/// Above this the states of the step before are not kept, and a running step cannot be cancelled.
const spare_states_max = 16 << 20;

pub const Shape = struct {
    pairs: u32,
    sequence: u32,
    /// Pairs that read the same stream, one after the other.
    pairs_per_stream: u32 = 1,
    /// Right shift of the rank-one term: 4 (fixed point) + sigma shift.
    perturb_shift: u32,
    /// Seed of the noise, where it is the run's and not the step's (nano-egg).
    seed: u32 = 0,
    /// Only the signs of the noise count in the update.
    signs: bool = false,
    /// Groups of 16 pairs in a panel; 0: chosen here. Results do not depend on it.
    panel_groups: u32,
    mode: Trainer.Mode,

    pub fn streams(shape: Shape) u32 {
        return (shape.pairs + shape.pairs_per_stream - 1) / shape.pairs_per_stream;
    }
};

/// What a step is told. `seed`: of its noise (egg.c), or the noise's epoch (nano-egg). `threshold`: see `bounds` of the rule.
pub const Order = struct { seed: u32, threshold: u32 };

pub const Trainer = struct {
    model: *Model,
    kernels: *const ops.Table,
    pool: *Pool,
    shape: Shape,
    groups: u32,
    panel_groups: u32,
    /// Instead of panels, where there are few members.
    few: ?Few,
    order: Order,
    /// Bytes of the streams: [streams][sequence + 1].
    batch: []align(64) u8,
    /// Recurrent state of every member: [2 * pairs][layers][hidden]; member 2p is pair p's plus side.
    states: []align(64) i8,
    /// Where a step writes the new states: `states` itself where memory is scarce.
    next_states: []align(64) i8,
    /// [groups] blocks of model.noise_bytes; empty where that is too much, and then workers make their own.
    noise: []align(64) u8,
    /// Integer losses in 1/16 bit, summed over the sequence: [2 * pairs].
    losses: []align(64) i32,
    /// sign(loss- - loss+): [groups * 16], 0 past the last pair.
    fitness: []align(64) i8,
    workers: []Worker,
    worker_count: usize,
    blocks: []Block,
    next_group: Counter align(std.atomic.cache_line),
    next_panel: Counter align(std.atomic.cache_line),
    next_block: Counter align(std.atomic.cache_line),
    /// Tokens of panels or members done, of `work()`.
    done: std.atomic.Value(u64) align(std.atomic.cache_line),
    changed: std.atomic.Value(u64),

    pub const Mode = enum(u32) { auto = 0, panels = 1, rows = 2 };

    /// One set of rows for a team of all threads, or sets that a thread each works on.
    const Few = struct { rows: []few.Rows, noise: few.Noise, team: bool };
    const Worker = struct {
        panel: ?forward.Panel,
        scratch: []align(64) u8,
        votes: []align(64) i32,
        /// Noise of one panel, or of one matrix for one pass of the update; empty where the population's is kept.
        noise: []align(64) u8,
        spent: Spent = .{},
    };
    /// CPU time of the last step by phase, in nanoseconds; with what a thread spun while it waited for others.
    pub const Spent = struct { noise: u64 = 0, forward: u64 = 0, update: u64 = 0 };
    /// Some rows of one perturbed parameter, for the update.
    const Block = struct { parameter: u32, row: u32, rows: u32 };

    /// Memory that `init` will take besides the model, in bytes.
    pub fn bytesNeeded(model: *const Model, shape: Shape, threads: u32) usize {
        const groups = groupsOf(shape.pairs);
        const states = stateBytes(model, shape);
        const own = workerBytes(model, shape, threads);
        return (if (states <= spare_states_max) 2 * states else states) + residentNoise(model, shape) +
            @as(usize, shape.streams()) * (shape.sequence + 1) + @as(usize, groups) * group_lanes * 5 +
            threads * (own.noise + own.votes * 4 + ops.update_scratch_bytes) + if (rowsPlan(model, shape, threads)) |plan|
            plan.sets * few.Rows.bytesNeeded(model, membersOfSet(shape, plan.sets)) + few.Noise.bytesNeeded(model, shape.pairs)
        else
            threads * forward.Panel.bytesNeeded(model, panelGroups(shape, threads));
    }

    fn residentNoise(model: *const Model, shape: Shape) usize {
        const bytes = @as(usize, groupsOf(shape.pairs)) * model.noise_bytes;
        return if (bytes <= resident_noise_max) bytes else 0;
    }

    /// What a worker has of its own: bytes of noise, and votes for more pairs than one pass takes.
    fn workerBytes(model: *const Model, shape: Shape, threads: u32) struct { noise: usize, votes: usize } {
        var widest: usize = 0;
        var largest: usize = 0;
        for (model.perturbed) |parameter| {
            widest = @max(widest, layout.alignUp(parameter.cols, ops.update_cols));
            largest = @max(largest, parameter.noiseBytes());
        }
        return .{
            .noise = if (residentNoise(model, shape) != 0) 0 else @max(panelGroups(shape, threads) * model.noise_bytes, ops.update_groups * largest),
            .votes = if (groupsOf(shape.pairs) <= ops.update_groups) 0 else blockRows(model, shape, threads) * widest,
        };
    }

    /// Rows of an update block: many, to re-lay B seldom; few where threads would run out of blocks, or where votes have to
    /// be kept between passes.
    fn blockRows(model: *const Model, shape: Shape, threads: u32) u32 {
        var rows: u32 = 0;
        for (model.perturbed) |parameter| rows += parameter.rows;
        return if (groupsOf(shape.pairs) > ops.update_groups or rows / ops.update_rows < 8 * threads) 128 else ops.update_rows;
    }

    pub fn init(trainer: *Trainer, model: *Model, kernels: *const ops.Table, pool: *Pool, shape: Shape) error{OutOfMemory}!void {
        const gpa = std.heap.page_allocator;
        const threads: u32 = @intCast(pool.workers.len);
        const groups = groupsOf(shape.pairs);
        const states = stateBytes(model, shape);

        const block_rows = blockRows(model, shape, threads);
        var blocks: std.ArrayList(Block) = .empty;
        errdefer blocks.deinit(gpa);
        for (model.perturbed, 0..) |parameter, i| {
            var row: u32 = 0;
            while (row < parameter.rows) : (row += block_rows) {
                try blocks.append(gpa, .{ .parameter = @intCast(i), .row = row, .rows = @min(block_rows, parameter.rows - row) });
            }
        }
        trainer.* = .{
            .model = model,
            .kernels = kernels,
            .pool = pool,
            .shape = shape,
            .groups = groups,
            .panel_groups = panelGroups(shape, threads),
            .few = null,
            .order = .{ .seed = 0, .threshold = 0 },
            .batch = &.{},
            .states = &.{},
            .next_states = &.{},
            .noise = &.{},
            .losses = &.{},
            .fitness = &.{},
            .workers = &.{},
            .worker_count = 0,
            .blocks = try blocks.toOwnedSlice(gpa),
            .next_group = .init(0),
            .next_panel = .init(0),
            .next_block = .init(0),
            .done = .init(0),
            .changed = .init(0),
        };
        errdefer trainer.deinit();
        trainer.batch = try os.allocate(u8, @as(usize, shape.streams()) * (shape.sequence + 1));
        trainer.states = try os.allocate(i8, states);
        trainer.next_states = if (states <= spare_states_max) try os.allocate(i8, states) else trainer.states;
        trainer.noise = try os.allocate(u8, residentNoise(model, shape));
        trainer.losses = try os.allocate(i32, 2 * @as(usize, shape.pairs));
        trainer.fitness = try os.allocate(i8, groups * pair_lanes);
        const rows_plan = rowsPlan(model, shape, threads);
        if (rows_plan) |plan| {
            var noise: few.Noise = undefined;
            try noise.init(model, shape.pairs, shape.perturb_shift);
            errdefer noise.deinit();
            const sets = try gpa.alloc(few.Rows, plan.sets);
            for (sets, 0..) |*rows, i| rows.init(model, membersOfSet(shape, plan.sets)) catch |err| {
                for (sets[0..i]) |*earlier| earlier.deinit();
                gpa.free(sets);
                return err;
            };
            trainer.few = .{ .rows = sets, .noise = noise, .team = plan.team };
        }
        const own = workerBytes(model, shape, threads);
        const workers = try gpa.alloc(Worker, threads);
        trainer.worker_count = threads;
        for (workers, 0..) |*worker, i| {
            worker.* = .{ .panel = null, .scratch = &.{}, .votes = &.{}, .noise = &.{} };
            trainer.workers = workers[0 .. i + 1];
            if (rows_plan == null) {
                var panel: forward.Panel = undefined;
                try panel.init(model, trainer.panel_groups);
                worker.panel = panel;
            }
            worker.scratch = try os.allocate(u8, ops.update_scratch_bytes);
            worker.votes = try os.allocate(i32, own.votes);
            worker.noise = try os.allocate(u8, own.noise);
        }
    }

    pub fn deinit(trainer: *Trainer) void {
        if (trainer.next_states.ptr != trainer.states.ptr) os.free(trainer.next_states);
        inline for (.{ "batch", "states", "noise", "losses", "fitness" }) |name| os.free(@field(trainer, name));
        if (trainer.few) |*few_members| {
            for (few_members.rows) |*rows| rows.deinit();
            std.heap.page_allocator.free(few_members.rows);
            few_members.noise.deinit();
        }
        for (trainer.workers) |*worker| {
            if (worker.panel) |*panel| panel.deinit();
            inline for (.{ "scratch", "votes", "noise" }) |name| os.free(@field(worker, name));
        }
        // `init` may have failed half-way: the slice is as long as it came, the memory as long as was asked for.
        std.heap.page_allocator.free(trainer.workers.ptr[0..trainer.worker_count]);
        std.heap.page_allocator.free(trainer.blocks);
    }

    fn groupsOf(pairs: u32) u32 {
        return (pairs + pair_lanes - 1) / pair_lanes;
    }

    fn stateBytes(model: *const Model, shape: Shape) usize {
        return 2 * @as(usize, shape.pairs) * model.shape.layers * model.shape.hidden;
    }

    /// Two groups read each weight half as often; one group shares small populations out more evenly.
    fn panelGroups(shape: Shape, threads: u32) u32 {
        if (shape.panel_groups != 0) return shape.panel_groups;
        return if (groupsOf(shape.pairs) >= 2 * threads) 2 else 1;
    }

    /// How few members run by rows; null for panels.
    fn rowsPlan(model: *const Model, shape: Shape, threads: u32) @TypeOf(few.plan(0, 1, 1, 16, 1)) {
        if (shape.mode == .panels or (shape.mode == .auto and shape.panel_groups != 0)) return null;
        // Rows have no vectors and embeddings of each member's own.
        if (model.shape.rule.perturbsAll()) return null;
        // Rows take their noise out of the population's, which has to be there.
        if (residentNoise(model, shape) == 0) return null;
        // Asked for, rows are taken whatever they cost: against panels that are endlessly wide.
        const lanes: u32 = if (shape.mode == .rows) 1 << 20 else group_lanes;
        return few.plan(2 * shape.pairs, 2, lanes, model.shape.hidden, threads);
    }

    fn membersOfSet(shape: Shape, sets: u32) u32 {
        return 2 * ((shape.pairs + sets - 1) / sets);
    }

    /// Panels of one step.
    fn panels(trainer: *const Trainer) u32 {
        return (trainer.groups + trainer.panel_groups - 1) / trainer.panel_groups;
    }

    /// Tokens of panels or members of one step.
    pub fn work(trainer: *const Trainer) u64 {
        const units = if (trainer.few != null) 2 * trainer.shape.pairs else trainer.panels();
        return @as(u64, units) * trainer.shape.sequence;
    }

    /// Starts a step on the batch; wait for the pool, then call `finish`.
    pub fn start(trainer: *Trainer, order: Order) void {
        trainer.order = order;
        trainer.next_group.store(0, .monotonic);
        trainer.next_panel.store(0, .monotonic);
        trainer.next_block.store(0, .monotonic);
        trainer.done.store(0, .monotonic);
        trainer.changed.store(0, .monotonic);
        trainer.pool.start(.{ .context = trainer, .run = run });
    }

    /// True if the step was carried out; false if it was cancelled, and nothing has changed.
    pub fn finish(trainer: *Trainer) bool {
        if (trainer.abandoned()) return false;
        std.mem.swap([]align(64) i8, &trainer.states, &trainer.next_states);
        return true;
    }

    fn abandoned(trainer: *const Trainer) bool {
        return trainer.cancellable() and trainer.done.load(.acquire) != trainer.work();
    }

    fn cancellable(trainer: *const Trainer) bool {
        return trainer.states.ptr != trainer.next_states.ptr;
    }

    fn run(context: *anyopaque, index: u32) void {
        const trainer: *Trainer = @ptrCast(@alignCast(context));
        const worker = &trainer.workers[index];
        worker.spent = .{};
        const begun = os.threadTime();
        if (trainer.few != null) {
            trainer.runRows(index);
        } else {
            while (next(&trainer.next_panel, trainer.panels())) |panel| trainer.runPanel(worker, panel * trainer.panel_groups);
        }
        worker.spent.forward = os.threadTime() - begun - worker.spent.noise;
        trainer.pool.barrier(trainer, judge);
        if (trainer.abandoned()) return;
        const judged = os.threadTime();
        while (next(&trainer.next_block, @intCast(trainer.blocks.len))) |block| trainer.updateBlock(worker, trainer.blocks[block]);
        worker.spent.update = os.threadTime() - judged;
    }

    /// CPU time of the last step by phase, summed over the workers, in nanoseconds.
    pub fn spent(trainer: *const Trainer) Spent {
        var sum: Spent = .{};
        for (trainer.workers) |worker| {
            inline for (@typeInfo(Spent).@"struct".fields) |field| @field(sum, field.name) += @field(worker.spent, field.name);
        }
        return sum;
    }

    /// The next unit of work that nobody has taken; null when there is none left.
    fn next(counter: *Counter, count: u32) ?u32 {
        const unit = counter.fetchAdd(1, .monotonic);
        return if (unit < count) unit else null;
    }

    fn nothing(_: *Trainer) void {}

    /// Noise, all tokens and losses of the groups first_group ...
    fn runPanel(trainer: *Trainer, worker: *Worker, first_group: u32) void {
        const model = trainer.model;
        const kernels = trainer.kernels;
        const panel = &worker.panel.?;
        const pairs = trainer.shape.pairs;
        panel.groups = @min(trainer.panel_groups, trainer.groups - first_group);
        panel.h_bytes = layout.activationBytes(model.shape.hidden, panel.groups);
        const lanes = panel.groups * group_lanes;
        const stride = trainer.shape.sequence + 1;
        const blocks = if (trainer.noise.len != 0) trainer.noise[first_group * model.noise_bytes ..] else worker.noise;
        const noise: forward.Noise = .{ .block = blocks.ptr, .stride = model.noise_bytes, .perturb_shift = trainer.shape.perturb_shift };
        const begun = os.threadTime();
        for (0..panel.groups) |g| trainer.fillGroup(first_group + g, blocks.ptr + g * model.noise_bytes);
        panel.perturbVectors(kernels, model, noise);
        worker.spent.noise += os.threadTime() - begun;

        // Lanes past the last pair repeat it: they are computed and forgotten.
        var streams: [forward.max_lanes]usize = undefined;
        var members: [forward.max_lanes]?usize = undefined;
        for (streams[0..lanes], members[0..lanes], 0..) |*stream, *member, lane| {
            const pair = (first_group + lane / group_lanes) * pair_lanes + lane % pair_lanes;
            const side = (lane % group_lanes) / pair_lanes;
            stream.* = @min(pair, pairs - 1) / trainer.shape.pairs_per_stream * stride;
            member.* = if (pair < pairs) 2 * pair + side else null;
        }
        const state_bytes = model.shape.layers * model.shape.hidden;
        for (members[0..lanes], 0..) |member, lane| {
            panel.loadState(kernels, lane, if (member) |m| trainer.states[m * state_bytes ..][0..state_bytes] else null);
        }

        var losses: [forward.max_lanes]i32 align(64) = @splat(0);
        var tokens: [forward.max_lanes]u8 align(64) = undefined;
        var targets: [forward.max_lanes]u8 align(64) = undefined;
        for (streams[0..lanes], targets[0..lanes]) |stream, *target| target.* = trainer.batch[stream];
        for (0..trainer.shape.sequence) |t| {
            tokens = targets;
            for (streams[0..lanes], targets[0..lanes]) |stream, *target| target.* = trainer.batch[stream + t + 1];
            if (!panel.token(kernels, model, noise, &tokens, if (trainer.cancellable()) &trainer.pool.cancelled else &never)) return;
            kernels.operators(model.shape.rule).loss(&.{
                .logits = panel.logits,
                .targets = &targets,
                .losses = &losses,
                .vocabulary = model.shape.vocabulary,
                .groups = panel.groups,
            });
            _ = trainer.done.fetchAdd(1, .release);
        }
        for (members[0..lanes], 0..) |member, lane| {
            if (member) |m| {
                panel.storeState(kernels, lane, trainer.next_states[m * state_bytes ..][0..state_bytes]);
                trainer.losses[m] = losses[lane];
            }
        }
    }

    /// Noise, all tokens and losses of a few members: this thread's own, or all of them with the other threads.
    fn runRows(trainer: *Trainer, index: u32) void {
        const model = trainer.model;
        const kernels = trainer.kernels;
        const threads: u32 = @intCast(trainer.pool.workers.len);
        const noise = &trainer.few.?.noise;
        const begun = os.threadTime();
        while (next(&trainer.next_group, trainer.groups)) |group| {
            const block = trainer.noise.ptr + group * model.noise_bytes;
            trainer.fillGroup(group, block);
            for (group * pair_lanes..@min((group + 1) * pair_lanes, trainer.shape.pairs)) |pair| noise.take(model, pair, block);
        }
        trainer.workers[index].spent.noise = os.threadTime() - begun;
        const sets = trainer.few.?.rows;
        const together = trainer.few.?.team;
        const set = if (together) 0 else index;
        if (set >= sets.len) return trainer.pool.barrier(trainer, nothing);
        const rows = &sets[set];
        const first = trainer.shape.pairs * set / @as(u32, @intCast(sets.len));
        const pairs = trainer.shape.pairs * (set + 1) / @as(u32, @intCast(sets.len)) - first;
        const leads = !together or index == 0;
        const state_bytes = model.shape.layers * model.shape.hidden;
        const states = [2]usize{ 2 * first * state_bytes, 2 * (first + pairs) * state_bytes };
        const losses = trainer.losses[2 * first ..][0 .. 2 * pairs];
        if (leads) {
            rows.members = 2 * pairs;
            rows.loadStates(kernels, model, trainer.states[states[0]..states[1]]);
            @memset(losses, 0);
        }
        trainer.pool.barrier(trainer, nothing);
        const team: few.Team = if (together) .{ .pool = trainer.pool, .index = index, .count = threads } else .solo;
        const stride = trainer.shape.sequence + 1;
        const cancelled = if (trainer.cancellable()) &trainer.pool.cancelled else &never;
        var starts: [few.members_max]usize = undefined;
        var begin: u32 = 0;
        while (begin < trainer.shape.sequence) : (begin += rows.chunk) {
            const count = @min(rows.chunk, trainer.shape.sequence - begin);
            for (starts[0 .. 2 * pairs], 0..) |*start_at, m| start_at.* = (first + m / 2) / trainer.shape.pairs_per_stream * stride + begin;
            const of: few.NoiseOf = .{ .noise = noise, .first = first, .count = pairs };
            if (!rows.read(team, kernels, model, of, trainer.batch, starts[0 .. 2 * pairs], count, cancelled)) return;
            if (!leads) continue;
            for (0..count) |t| for (losses, 0..) |*loss, m| {
                loss.* += rows.lossOf(kernels, model, t, m, trainer.batch[starts[m] + t + 1]);
            };
            _ = trainer.done.fetchAdd(count * 2 * pairs, .release);
        }
        if (leads) rows.storeStates(kernels, model, trainer.next_states[states[0]..states[1]]);
    }

    fn fillGroup(trainer: *Trainer, group: usize, block: [*]u8) void {
        for (trainer.model.perturbed) |parameter| trainer.fillNoise(parameter, group, block + parameter.noise_a);
    }

    /// Makes one parameter's noise for one group of pairs, with the first of it at `out` and the rest behind.
    fn fillNoise(trainer: *Trainer, parameter: layout.Parameter, group: usize, out: [*]u8) void {
        const order = trainer.order;
        switch (trainer.model.shape.rule) {
            .egg_c => egg_c.fillNoise(trainer.kernels, order.seed, parameter, group, out),
            .nano_egg => nano_egg.fillNoise(trainer.kernels, trainer.shape.seed, order.seed, parameter, group, out),
        }
    }

    fn bounds(trainer: *const Trainer) ops.Bounds {
        const threshold = trainer.order.threshold;
        return switch (trainer.model.shape.rule) {
            .egg_c => egg_c.bounds(threshold),
            .nano_egg => nano_egg.bounds(threshold, trainer.shape.pairs, trainer.shape.signs),
        };
    }

    /// Fitness of every pair: only the sign of the difference counts.
    fn judge(trainer: *Trainer) void {
        if (trainer.abandoned()) return;
        for (trainer.fitness[0..trainer.shape.pairs], 0..) |*fitness, pair| {
            fitness.* = @intCast(std.math.sign(trainer.losses[2 * pair + 1] - trainer.losses[2 * pair]));
        }
    }

    fn updateBlock(trainer: *Trainer, worker: *Worker, block: Block) void {
        const model = trainer.model;
        const parameter = model.perturbed[block.parameter];
        const resident = trainer.noise.len != 0;
        const stride = if (resident) model.noise_bytes else parameter.noiseBytes();
        var first: u32 = 0;
        while (first < trainer.groups) : (first += ops.update_groups) {
            const groups = @min(ops.update_groups, trainer.groups - first);
            const noise = if (resident) trainer.noise.ptr + first * stride + parameter.noise_a else worker.noise.ptr;
            if (!resident) for (0..groups) |g| trainer.fillNoise(parameter, first + g, noise + g * stride);
            const pass: Pass = .{
                .noise = noise,
                .stride = stride,
                .fitness = trainer.fitness.ptr + first * pair_lanes,
                .groups = groups,
                .first = @intFromBool(first == 0),
                .last = @intFromBool(first + groups == trainer.groups),
            };
            const changed = if (parameter.kind == .vector) trainer.updateVector(worker, parameter, block, pass) else trainer.updateMatrix(worker, parameter, block, pass);
            _ = trainer.changed.fetchAdd(changed, .monotonic);
        }
    }

    /// The groups of one pass over a block, and their noise of the block's parameter.
    const Pass = struct { noise: [*]u8, stride: usize, fitness: [*]const i8, groups: u32, first: u32, last: u32 };

    fn updateMatrix(trainer: *Trainer, worker: *Worker, parameter: layout.Parameter, block: Block, pass: Pass) u32 {
        var op: ops.Update = .{
            .weights = trainer.model.weights.ptr + parameter.weights + @as(usize, block.row) * parameter.cols,
            .offsets = trainer.model.offsets.ptr + parameter.offsets + block.row,
            .a = @ptrCast(pass.noise + @as(usize, block.row) * pair_lanes),
            .b = @ptrCast(pass.noise + parameter.noise_b - parameter.noise_a),
            .noise_stride = pass.stride,
            .fitness = pass.fitness,
            .scratch = worker.scratch.ptr,
            .votes = worker.votes.ptr,
            .rows = block.rows,
            .cols = parameter.cols,
            .groups = pass.groups,
            .signs = @intFromBool(trainer.shape.signs),
            .bounds = trainer.bounds(),
            .first = pass.first,
            .last = pass.last,
            .changed = 0,
        };
        trainer.kernels.update(&op);
        return op.changed;
    }

    fn updateVector(trainer: *Trainer, worker: *Worker, parameter: layout.Parameter, block: Block, pass: Pass) u32 {
        const noise: [*]const i16 = @ptrCast(@alignCast(pass.noise));
        var op: ops.UpdateVector = .{
            .weights = trainer.model.weights.ptr + parameter.weights + block.row,
            .noise = noise + @as(usize, block.row) * pair_lanes,
            .noise_stride = pass.stride,
            .fitness = pass.fitness,
            .votes = worker.votes.ptr,
            .rows = block.rows,
            .groups = pass.groups,
            .signs = @intFromBool(trainer.shape.signs),
            .bounds = trainer.bounds(),
            .first = pass.first,
            .last = pass.last,
            .changed = 0,
        };
        trainer.kernels.update_vector(&op);
        return op.changed;
    }
};

test "few members run by rows, unless their noise is too much to be kept" {
    var model: Model = undefined;
    model.shape = .{ .rule = .egg_c, .layers = 4, .hidden = 512, .vocabulary = 256 };
    const shape: Shape = .{ .pairs = 3, .sequence = 8, .perturb_shift = 8, .panel_groups = 0, .mode = .auto };
    model.noise_bytes = resident_noise_max;
    try std.testing.expect(Trainer.rowsPlan(&model, shape, 2) != null);
    model.noise_bytes = resident_noise_max + 1;
    try std.testing.expect(Trainer.rowsPlan(&model, shape, 2) == null);
}
