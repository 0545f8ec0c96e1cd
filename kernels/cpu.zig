// Which CPU tiers this build holds and which of them this machine can run: CPUID or hwcap, and what the operating
// system saves on a context switch. No kernels here. Read next: tier.zig (how a tier is compiled).
const std = @import("std");
const builtin = @import("builtin");
const context_ops = @import("contexts/ops.zig");
const float_ops = @import("float/ops.zig");
const float_scalar = @import("float/scalar.zig");
const ops = @import("int8/ops.zig");
const scalar = @import("int8/scalar.zig");

/// From the plainest to the fastest on each architecture; the numbers are part of the ABI (src/native/machine.ts).
pub const Tier = enum(u32) {
    scalar = 0,
    avx2 = 1,
    avxvnni = 2,
    avx512vnni = 3,
    neon = 4,
    dotprod = 5,

    /// This tier's kernels of the context model, or null where this build has none.
    pub fn contexts(tier: Tier) ?*const context_ops.Table {
        const plain = @import("contexts/scalar.zig");
        return switch (builtin.cpu.arch) {
            .x86_64 => switch (tier) {
                .scalar => &plain.table,
                .avx2 => &extern_tables.egg_contexts_avx2,
                .avxvnni => &extern_tables.egg_contexts_avxvnni,
                .avx512vnni => &extern_tables.egg_contexts_avx512vnni,
                else => null,
            },
            .aarch64 => switch (tier) {
                .scalar => &plain.table,
                .neon => &extern_tables.egg_contexts_neon,
                .dotprod => &extern_tables.egg_contexts_dotprod,
                else => null,
            },
            else => if (tier == .scalar) &plain.table else null,
        };
    }

    /// This tier's kernels, or null where this build has none.
    pub fn kernels(tier: Tier) ?*const ops.Table {
        return switch (builtin.cpu.arch) {
            .x86_64 => switch (tier) {
                .scalar => &scalar.table,
                .avx2 => &extern_tables.egg_int8_avx2,
                .avxvnni => &extern_tables.egg_int8_avxvnni,
                .avx512vnni => &extern_tables.egg_int8_avx512vnni,
                else => null,
            },
            .aarch64 => switch (tier) {
                .scalar => &scalar.table,
                .neon => &extern_tables.egg_int8_neon,
                .dotprod => &extern_tables.egg_int8_dotprod,
                else => null,
            },
            else => if (tier == .scalar) &scalar.table else null,
        };
    }

    /// This tier's float kernels; tiers that differ in integer instructions only share theirs.
    pub fn floats(tier: Tier) ?*const float_ops.Table {
        return switch (builtin.cpu.arch) {
            .x86_64 => switch (tier) {
                .scalar => &float_scalar.table,
                .avx2, .avxvnni => &extern_tables.egg_float_avx2,
                .avx512vnni => if (detect().contains(.avx512_bf16)) &extern_tables.egg_float_avx512bf16 else &extern_tables.egg_float_avx512vnni,
                else => null,
            },
            .aarch64 => switch (tier) {
                .scalar => &float_scalar.table,
                .neon, .dotprod => &extern_tables.egg_float_neon,
                else => null,
            },
            else => if (tier == .scalar) &float_scalar.table else null,
        };
    }
};

/// The float kernels that AVX-512 machines without bf16 products take, where this one has them and takes others. For tests.
pub fn withoutBf16() ?*const float_ops.Table {
    if (builtin.cpu.arch != .x86_64 or !available(.avx512vnni) or !detect().contains(.avx512_bf16)) return null;
    return &extern_tables.egg_float_avx512vnni;
}

const extern_tables = struct {
    extern const egg_int8_avx2: ops.Table;
    extern const egg_int8_avxvnni: ops.Table;
    extern const egg_int8_avx512vnni: ops.Table;
    extern const egg_int8_neon: ops.Table;
    extern const egg_int8_dotprod: ops.Table;
    extern const egg_float_avx2: float_ops.Table;
    extern const egg_float_avx512vnni: float_ops.Table;
    extern const egg_float_avx512bf16: float_ops.Table;
    extern const egg_float_neon: float_ops.Table;
    extern const egg_contexts_avx2: context_ops.Table;
    extern const egg_contexts_avxvnni: context_ops.Table;
    extern const egg_contexts_avx512vnni: context_ops.Table;
    extern const egg_contexts_neon: context_ops.Table;
    extern const egg_contexts_dotprod: context_ops.Table;
};

/// CPU and operating system features that some tier asks for. Bits of `Info.features`.
pub const Feature = enum(u5) { avx2, bmi2, fma, avx512, avx512vnni, avx_vnni, avx512_bf16, neon, dotprod };

pub const Features = std.EnumSet(Feature);

pub fn required(tier: Tier) Features {
    return switch (tier) {
        .scalar => .initEmpty(),
        .avx2 => .initMany(&.{ .avx2, .bmi2, .fma }),
        .avxvnni => .initMany(&.{ .avx2, .bmi2, .fma, .avx_vnni }),
        .avx512vnni => .initMany(&.{ .avx2, .bmi2, .fma, .avx512, .avx512vnni }),
        .neon => .initMany(&.{.neon}),
        .dotprod => .initMany(&.{ .neon, .dotprod }),
    };
}

pub fn available(tier: Tier) bool {
    return tier.kernels() != null and required(tier).subsetOf(detect());
}

/// The fastest tier that this machine can run.
pub fn best() Tier {
    var found: Tier = .scalar;
    for (std.enums.values(Tier)) |tier| if (available(tier)) {
        found = tier;
    };
    return found;
}

pub fn detect() Features {
    return switch (builtin.cpu.arch) {
        .x86_64 => detectX86(),
        .aarch64 => detectArm(),
        else => .initEmpty(),
    };
}

const Leaf = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Leaf {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [a] "={eax}" (eax),
          [b] "={ebx}" (ebx),
          [c] "={ecx}" (ecx),
          [d] "={edx}" (edx),
        : [leaf] "{eax}" (leaf),
          [subleaf] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

fn bit(word: u32, n: u5) bool {
    return (word >> n) & 1 != 0;
}

/// Register state that the operating system saves (XCR0); 0 where it does not say.
fn savedState(leaf1: Leaf) u32 {
    if (!bit(leaf1.ecx, 27)) return 0;
    var low: u32 = undefined;
    var high: u32 = undefined;
    asm volatile ("xgetbv"
        : [low] "={eax}" (low),
          [high] "={edx}" (high),
        : [which] "{ecx}" (@as(u32, 0)),
    );
    return low;
}

fn detectX86() Features {
    var features: Features = .initEmpty();
    if (cpuid(0, 0).eax < 7) return features;
    const leaf1 = cpuid(1, 0);
    const leaf7 = cpuid(7, 0);
    const leaf7_1 = if (leaf7.eax >= 1) cpuid(7, 1) else Leaf{ .eax = 0, .ebx = 0, .ecx = 0, .edx = 0 };
    const saved = savedState(leaf1);
    const ymm = saved & 0x6 == 0x6;
    const zmm = saved & 0xe6 == 0xe6;
    // LZCNT and POPCNT come with every CPU that has BMI2.
    features.setPresent(.bmi2, bit(leaf7.ebx, 3) and bit(leaf7.ebx, 8) and bit(leaf1.ecx, 23));
    features.setPresent(.avx2, ymm and bit(leaf7.ebx, 5));
    features.setPresent(.fma, ymm and bit(leaf1.ecx, 12));
    // F, DQ, CD, BW, VL.
    const avx512 = zmm and bit(leaf7.ebx, 16) and bit(leaf7.ebx, 17) and bit(leaf7.ebx, 28) and bit(leaf7.ebx, 30) and bit(leaf7.ebx, 31);
    features.setPresent(.avx512, avx512);
    features.setPresent(.avx512vnni, avx512 and bit(leaf7.ecx, 11));
    features.setPresent(.avx_vnni, ymm and bit(leaf7_1.eax, 4));
    features.setPresent(.avx512_bf16, avx512 and bit(leaf7_1.eax, 5));
    return features;
}

fn detectArm() Features {
    var features: Features = .initEmpty();
    // Every 64-bit ARM that runs these systems has NEON.
    features.insert(.neon);
    if (builtin.os.tag == .linux) {
        const asimddp = 1 << 20; // HWCAP_ASIMDDP
        features.setPresent(.dotprod, std.os.linux.getauxval(std.elf.AT_HWCAP) & asimddp != 0);
    } else {
        var value: c_int = 0;
        var size: usize = @sizeOf(c_int);
        const known = std.c.sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, null, 0) == 0;
        features.setPresent(.dotprod, known and value != 0);
    }
    return features;
}
