// The boundary's own types: status codes, records, and the manifest that src/native/abi.ts is checked against.
// No computing here. Read next: egg.zig, the list of exports.
const std = @import("std");
const float_ops = @import("float/ops.zig");

/// What every export returns. Negative: an error; its text is in egg_last_error.
pub const Status = enum(i32) {
    ok = 0,
    bad_argument = -1,
    bad_shape = -2,
    stale_handle = -3,
    out_of_memory = -4,
    busy = -5,
    unsupported = -6,
    held = -7,
    no_thread = -8,
    too_many_objects = -9,
    cancelled = -10,
    fault = -11,
};

pub const Error = error{
    BadArgument,
    BadShape,
    StaleHandle,
    OutOfMemory,
    Busy,
    Unsupported,
    Held,
    NoThread,
    TooManyObjects,
    Cancelled,
    Fault,
};

pub fn statusOf(err: Error) Status {
    return switch (err) {
        error.BadArgument => .bad_argument,
        error.BadShape => .bad_shape,
        error.StaleHandle => .stale_handle,
        error.OutOfMemory => .out_of_memory,
        error.Busy => .busy,
        error.Unsupported => .unsupported,
        error.Held => .held,
        error.NoThread => .no_thread,
        error.TooManyObjects => .too_many_objects,
        error.Cancelled => .cancelled,
        error.Fault => .fault,
    };
}

pub const ModelShape = extern struct { layers: u32, hidden: u32, vocabulary: u32, rule: u32 };

/// What stays the same from step to step; fields that the model's rule does not know are 0 (pairs_per_stream: 1).
pub const TrainerShape = extern struct { pairs: u32, sequence: u32, pairs_per_stream: u32, sigma_shift: u32, panel_groups: u32, mode: u32, seed: u32, signs: u32 };

/// What one step is told (int8/eggroll.zig: Order).
pub const StepOrder = extern struct { seed: u32, threshold: u32 };

/// Filled by egg_wait; `finished` is 1 when no job runs, `share` is how much of it is done, in 1/65536.
pub const Progress = extern struct { finished: u32, share: u32 };

/// Filled by egg_int8_step_finish.
pub const StepResult = extern struct { changed: f64, loss_sum: f64, plus: u32, minus: u32 };

/// Filled by egg_int8_evaluate_finish: sums over all streams of the window.
pub const EvaluateResult = extern struct { tokens: f64, bits: f64, loss_sum: f64 };

/// What a benchmark works on (bench.zig: Shape); fields that a kind does not use are 0.
pub const BenchShape = extern struct { what: u32, rows: u32, cols: u32, groups: u32, panels: u32, hidden: u32, layers: u32, kib: u32 };

/// Filled by egg_bench_window: wall time from the first start to the last end, CPU time of all threads, work done.
pub const BenchWindow = extern struct { seconds: f64, cpu_seconds: f64, work: f64 };

/// Filled by egg_bench_phases: CPU time of the last step, summed over the threads, with what they spun while they waited
/// inside a phase. Noise that the update makes again counts as update.
pub const BenchPhases = extern struct { noise: f64, forward: f64, update: f64 };

/// Filled when float instructions were run: 1 + the instruction and the element at fault (0: none), wall time where timed.
/// `ran`: lanes of the kernels' vectors in the lower 16 bits, threads that had something to do in the upper.
pub const RunResult = extern struct { instruction: u32, element: u32, tag: u32, ran: u32, seconds: f64 };

/// What egg_ladder_run does: `level` by float/ladder.zig; product (m, k) (k, n), or attention of m positions, heads of k (n = 0).
pub const LadderShape = extern struct { level: u32, m: u32, n: u32, k: u32, repeats: u32, reserved: u32 };

/// Filled by egg_ladder_run: what the level told of itself, and the time of all repeats.
pub const LadderResult = extern struct { level: u32, reserved: u32, inner: f64, seconds: f64 };

pub const ContextsShape = extern struct { vocabulary: u32, order: u32, table_bits: u32, reserved: u32 };

/// As in contexts/eggroll.zig.
pub const ContextsTrainerShape = extern struct { groups: u32, positions: u32, seed: u32, shift: u32, fitness_shift: u32, cap: u32, decay_every: u32, decay_shift: u32 };

/// Filled by egg_contexts_step_finish: bits of all members and positions, votes for either side, weights that moved, CPU seconds by phase.
pub const ContextsResult = extern struct { loss: f64, plus: f64, minus: f64, changed: f64, noise: f64, forward: f64, update: f64 };

pub const CpuInfo = extern struct { features: u32, available: u32, built: u32, best: u32 };

const records = .{ ModelShape, TrainerShape, StepOrder, Progress, StepResult, EvaluateResult, BenchShape, BenchWindow, BenchPhases, RunResult, LadderShape, LadderResult, ContextsShape, ContextsTrainerShape, ContextsResult, CpuInfo } ++ float_ops.args_types;

/// One line a function, record and status: the text that both sides must agree on.
pub fn manifest(comptime files: anytype) []const u8 {
    comptime {
        @setEvalBranchQuota(1000000);
        var text: []const u8 = "";
        for (files) |Exports| {
            for (@typeInfo(Exports).@"struct".decls) |decl| {
                if (!std.mem.startsWith(u8, decl.name, "egg_")) continue;
                const function = @typeInfo(@TypeOf(@field(Exports, decl.name))).@"fn";
                text = text ++ decl.name ++ "(";
                for (function.params, 0..) |param, i| text = text ++ (if (i == 0) "" else ",") ++ typeName(param.type.?);
                text = text ++ ") " ++ typeName(function.return_type.?) ++ "\n";
            }
        }
        for (records) |Record| {
            text = text ++ shortName(Record) ++ std.fmt.comptimePrint(" {d}", .{@sizeOf(Record)});
            for (@typeInfo(Record).@"struct".fields) |field| {
                text = text ++ std.fmt.comptimePrint(" {s}:{s}@{d}", .{ field.name, typeName(field.type), @offsetOf(Record, field.name) });
            }
            text = text ++ "\n";
        }
        for (float_ops.enums) |Enum| {
            text = text ++ shortName(Enum);
            for (@typeInfo(Enum).@"enum".fields) |field| text = text ++ " " ++ field.name;
            text = text ++ "\n";
        }
        for (@typeInfo(Status).@"enum".fields) |field| text = text ++ std.fmt.comptimePrint("{s} {d}\n", .{ field.name, field.value });
        return text;
    }
}

fn typeName(comptime T: type) []const u8 {
    return switch (T) {
        u32, i32, f64, f32 => @typeName(T),
        [6]u32 => "u32x6",
        float_ops.Ref => "ref",
        else => if (@typeInfo(T) == .pointer) "buffer" else @compileError("not a type of the boundary: " ++ @typeName(T)),
    };
}

fn shortName(comptime T: type) []const u8 {
    const name = @typeName(T);
    return name[std.mem.lastIndexOfScalar(u8, name, '.').? + 1 ..];
}

/// FNV-1a, 32 bit.
pub fn hash(text: []const u8) u32 {
    @setEvalBranchQuota(1000000);
    var value: u32 = 2166136261;
    for (text) |byte| value = (value ^ byte) *% 16777619;
    return value;
}
