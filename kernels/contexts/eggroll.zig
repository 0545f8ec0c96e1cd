// One training step of the context model: groups of pairs read their positions and vote, then every row that was read moves.
// Integers only. A step is a pure function of the weights, its number and its text; no thread, panel or tier changes a bit of it.
// It does not choose text or rates: src/learners/eggroll-contexts.ts does. Read next: ops.zig (the formulas), model.zig.
const std = @import("std");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;

const Counter = std.atomic.Value(u32);
const none = std.math.maxInt(u32);
/// Rows that are asked for before they are moved: they lie anywhere in memory.
const ahead = 12;

pub const Shape = struct {
    /// Groups of 16 pairs; each reads text of its own.
    groups: u32,
    /// Positions that a group reads in a step.
    positions: u32,
    seed: u32,
    /// Right shift of the rank-one term.
    shift: u32,
    fitness_shift: u32,
    /// Readings in a step up to which a row's votes count in full.
    cap: u32,
    /// Every so many steps all masters lose their 2^-decay_shift part; 0: never.
    decay_every: u32,
    decay_shift: u32,
};

pub const Trainer = struct {
    model: *Model,
    kernels: *const ops.Table,
    pool: *Pool,
    shape: Shape,
    margin: u32,
    step: u32,
    rate: u32,
    /// [groups][order + positions]: each group's text, its first context before it.
    batch: []align(64) u8,
    /// loss of the minus side - loss of the plus side: [groups][positions][16], in 1/256 bit; only where asked for.
    differences: []align(64) i32,
    workers: []Worker,
    worker_count: usize,
    next_group: Counter align(std.atomic.cache_line),
    done: Counter align(std.atomic.cache_line),
    complete: bool,

    const Worker = struct {
        /// Place in `votes` of each row, none where this worker has not met it in this step.
        places: []align(64) u32,
        rows: []align(64) u32,
        readings: []align(64) u32,
        votes: []align(64) i32,
        count: u32,
        noise: []align(64) i8,
        pairs: []align(64) i16,
        quads: []align(64) i8,
        offsets: []align(64) i32,
        spent: Spent = .{},
        loss: i64 = 0,
        plus: u64 = 0,
        minus: u64 = 0,
        changed: u64 = 0,

        /// Where this worker adds up the votes of a row.
        fn votesOf(worker: *Worker, row: u32, width: usize) [*]align(64) i32 {
            if (worker.places[row] == none) {
                worker.places[row] = worker.count;
                worker.rows[worker.count] = row;
                worker.readings[worker.count] = 0;
                @memset(worker.votes[worker.count * width ..][0..width], 0);
                worker.count += 1;
            }
            worker.readings[worker.places[row]] += 1;
            return @alignCast(worker.votes[worker.places[row] * width ..].ptr);
        }
    };
    /// CPU time of the last step by phase, in nanoseconds.
    pub const Spent = struct { noise: u64 = 0, forward: u64 = 0, update: u64 = 0 };

    pub const Result = struct { loss: i64, plus: u64, minus: u64, changed: u64 };

    /// Rows that one worker may meet in a step.
    fn mostRows(model_rows: usize, shape: Shape, order: u32) usize {
        return @min(model_rows, @as(usize, shape.groups) * shape.positions * order);
    }

    /// Memory that `init` will take besides the model, in bytes.
    pub fn bytesNeeded(model: *const Model, shape: Shape, threads: u32) usize {
        const rows = model.shape.rows();
        const met = mostRows(rows, shape, model.shape.order);
        return @as(usize, shape.groups) * (model.shape.order + shape.positions) + @as(usize, shape.groups) * shape.positions * 64 +
            threads * (4 * rows + met * (8 + 4 * model.width) + model.width * (16 + 32 + 16 + 4));
    }

    pub fn init(trainer: *Trainer, model: *Model, kernels: *const ops.Table, pool: *Pool, shape: Shape) error{OutOfMemory}!void {
        const rows = model.shape.rows();
        const met = mostRows(rows, shape, model.shape.order);
        trainer.* = .{
            .model = model,
            .kernels = kernels,
            .pool = pool,
            .shape = shape,
            .margin = ops.marginOf(model.shape.order, shape.shift),
            .step = 0,
            .rate = 0,
            .batch = &.{},
            .differences = &.{},
            .workers = &.{},
            .worker_count = 0,
            .next_group = .init(0),
            .done = .init(0),
            .complete = false,
        };
        errdefer trainer.deinit();
        trainer.batch = try os.allocate(u8, @as(usize, shape.groups) * (model.shape.order + shape.positions));
        trainer.differences = try os.allocate(i32, @as(usize, shape.groups) * shape.positions * ops.pair_lanes);
        const workers = try std.heap.page_allocator.alloc(Worker, pool.workers.len);
        trainer.worker_count = workers.len;
        for (workers, 0..) |*worker, i| {
            worker.* = .{ .places = &.{}, .rows = &.{}, .readings = &.{}, .votes = &.{}, .count = 0, .noise = &.{}, .pairs = &.{}, .quads = &.{}, .offsets = &.{} };
            trainer.workers = workers[0 .. i + 1];
            worker.places = try os.allocate(u32, rows);
            @memset(worker.places, none);
            worker.rows = try os.allocate(u32, met);
            worker.readings = try os.allocate(u32, met);
            worker.votes = try os.allocate(i32, met * model.width);
            worker.noise = try os.allocate(i8, model.width * ops.pair_lanes);
            worker.pairs = try os.allocate(i16, model.width * ops.pair_lanes);
            worker.quads = try os.allocate(i8, model.width * ops.pair_lanes);
            worker.offsets = try os.allocate(i32, model.width);
        }
    }

    pub fn deinit(trainer: *Trainer) void {
        os.free(trainer.batch);
        os.free(trainer.differences);
        for (trainer.workers) |*worker| {
            inline for (.{ "places", "rows", "readings", "votes", "noise", "pairs", "quads", "offsets" }) |name| os.free(@field(worker, name));
        }
        // `init` may have failed half-way: the slice is as long as it came, the memory as long as was asked for.
        std.heap.page_allocator.free(trainer.workers.ptr[0..trainer.worker_count]);
    }

    /// Groups of one step.
    pub fn work(trainer: *const Trainer) u64 {
        return trainer.shape.groups;
    }

    /// Starts step number `step` on the batch; wait for the pool, then call `finish`.
    /// @param rate of ops.Move, for rows that are read no more often than the cap
    pub fn start(trainer: *Trainer, step: u32, rate: u32) void {
        trainer.step = step;
        trainer.rate = rate;
        trainer.next_group.store(0, .monotonic);
        trainer.done.store(0, .monotonic);
        trainer.complete = false;
        trainer.pool.start(.{ .context = trainer, .run = run });
    }

    /// What the step did; null if it was cancelled, and then nothing has changed.
    pub fn finish(trainer: *Trainer) ?Result {
        if (!trainer.complete) return null;
        var sum: Result = .{ .loss = 0, .plus = 0, .minus = 0, .changed = 0 };
        for (trainer.workers) |worker| {
            sum.loss += worker.loss;
            sum.plus += worker.plus;
            sum.minus += worker.minus;
            sum.changed += worker.changed;
        }
        return sum;
    }

    /// CPU time of the last step by phase, summed over the workers, in nanoseconds.
    pub fn spent(trainer: *const Trainer) Spent {
        var sum: Spent = .{};
        for (trainer.workers) |worker| {
            inline for (@typeInfo(Spent).@"struct".fields) |field| @field(sum, field.name) += @field(worker.spent, field.name);
        }
        return sum;
    }

    fn run(context: *anyopaque, index: u32) void {
        const trainer: *Trainer = @ptrCast(@alignCast(context));
        const worker = &trainer.workers[index];
        const begun = os.threadTime();
        for (worker.rows[0..worker.count]) |row| worker.places[row] = none;
        inline for (.{ "loss", "plus", "minus", "changed", "count" }) |name| @field(worker, name) = 0;
        worker.spent = .{};
        while (!trainer.pool.cancelled.load(.monotonic)) {
            const group = trainer.next_group.fetchAdd(1, .monotonic);
            if (group >= trainer.shape.groups) break;
            trainer.readGroup(worker, group);
            _ = trainer.done.fetchAdd(1, .release);
        }
        const read = os.threadTime();
        worker.spent.forward = read - begun - worker.spent.noise;
        trainer.pool.barrier(trainer, judge);
        if (!trainer.complete) return;
        const judged = os.threadTime();
        trainer.moveRows(worker, index);
        const decays = trainer.shape.decay_every != 0 and (trainer.step + 1) % trainer.shape.decay_every == 0;
        if (decays) {
            trainer.pool.barrier(trainer, nothing);
            trainer.decay(index);
        }
        worker.spent.update = os.threadTime() - judged;
    }

    fn judge(trainer: *Trainer) void {
        trainer.complete = trainer.done.load(.acquire) == trainer.shape.groups;
    }

    fn nothing(_: *Trainer) void {}

    fn readGroup(trainer: *Trainer, worker: *Worker, group: u32) void {
        const model = trainer.model;
        const shape = trainer.shape;
        const begun = os.threadTime();
        const step_key = ops.hash(ops.hash(shape.seed *% ops.golden_ratio +% trainer.step) +% 0x632be5ab);
        const key = ops.hash(step_key +% group);
        trainer.kernels.group(&.{
            .key = key,
            .vocabulary = model.shape.vocabulary,
            .noise = worker.noise.ptr,
            .pairs = worker.pairs.ptr,
            .quads = worker.quads.ptr,
            .offsets = worker.offsets.ptr,
        });
        worker.spent.noise += os.threadTime() - begun;

        const order = model.shape.order;
        const length = order + shape.positions;
        const text = trainer.batch[group * length ..][0..length];
        var op: ops.Position = .{
            .order = order,
            .vocabulary = model.shape.vocabulary,
            .target = undefined,
            .shift = shape.shift,
            .fitness_shift = shape.fitness_shift,
            .margin = trainer.margin,
            .key = ops.hash(key ^ 0x5bd1e995),
            .rows = undefined,
            .weights = model.weights.ptr,
            .votes = undefined,
            .pairs = worker.pairs.ptr,
            .quads = worker.quads.ptr,
            .offsets = worker.offsets.ptr,
            .differences = undefined,
            .loss = undefined,
        };
        var next_rows = model.rowsAt(text, order);
        for (0..shape.positions) |i| {
            op.rows = next_rows;
            op.target = model.tokens[text[order + i]];
            if (i + 1 < shape.positions) {
                next_rows = model.rowsAt(text, order + i + 1);
                for (next_rows[0..order]) |row| model.fetch(row);
            }
            for (op.rows[0..order], op.votes[0..order]) |row, *votes| votes.* = worker.votesOf(row, model.width);
            op.differences = trainer.differences.ptr + (group * @as(usize, shape.positions) + i) * ops.pair_lanes;
            trainer.kernels.position(&op);
            worker.loss += op.loss;
            for (op.differences[0..ops.pair_lanes]) |difference| {
                worker.plus += @intFromBool(difference > 0);
                worker.minus += @intFromBool(difference < 0);
            }
        }
    }

    /// Moves the rows that this worker answers for: every one that some worker has met, once.
    fn moveRows(trainer: *Trainer, worker: *Worker, index: u32) void {
        const model = trainer.model;
        const width = model.width;
        const workers = trainer.workers;
        for (workers, 0..) |*meeting, w| {
            rows: for (meeting.rows[0..meeting.count], 0..) |row, place| {
                if (place + ahead < meeting.count and meeting.rows[place + ahead] % workers.len == index) model.fetchMaster(meeting.rows[place + ahead]);
                if (row % workers.len != index) continue;
                const votes = meeting.votes[place * width ..][0..width];
                var readings: u32 = meeting.readings[place];
                for (workers, 0..) |*other, o| {
                    if (o == w or other.places[row] == none) continue;
                    if (o < w) continue :rows; // was moved there
                    const more = other.votes[other.places[row] * width ..][0..width];
                    for (votes, more) |*vote, extra| vote.* +%= extra;
                    readings += other.readings[other.places[row]];
                }
                const capped = @as(u64, trainer.rate) * trainer.shape.cap / @max(readings, trainer.shape.cap);
                var op: ops.Move = .{
                    .votes = @alignCast(votes.ptr),
                    .master = @alignCast(model.masters[row * width ..].ptr),
                    .weights = model.weights[row * width ..].ptr,
                    .padded = @intCast(width),
                    .rate = @intCast(capped),
                    .changed = 0,
                };
                trainer.kernels.move(&op);
                worker.changed += op.changed;
            }
        }
    }

    fn decay(trainer: *Trainer, index: u32) void {
        const model = trainer.model;
        const share = (model.masters.len + trainer.workers.len - 1) / trainer.workers.len;
        const first = @min(share * index, model.masters.len);
        const last = @min(first + share, model.masters.len);
        const divisor = @as(i32, 1) << @intCast(trainer.shape.decay_shift);
        for (model.masters[first..last], model.weights[first..last]) |*master, *weight| {
            master.* -= @divTrunc(master.*, divisor);
            weight.* = @intCast((master.* + (1 << (ops.unit_bits - 1))) >> ops.unit_bits);
        }
    }
};
