// What the measured figures depend on: CPU, cores, caches, memory, as the operating system tells them. Not what egg can run
// on it: src/native/machine.ts asks the kernel library. Read next: windows.ts.
import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

export interface Cache {
  level: number;
  /** Of one instance, in bytes. */
  bytes: number;
  /** Logical cores that share one. */
  shared_by: number;
}

export interface Hardware {
  cpu: string;
  arch: string;
  os: string;
  /** Logical cores that this process may use. */
  cores: number;
  /** Cores proper, where the system tells. */
  physical_cores: number | null;
  /** Kinds of cores where there are several, the fastest first: logical cores of each. */
  core_kinds: { name: string; cores: number }[];
  /** Names of the instruction sets that matter to kernels, as the system spells them. */
  features: string[];
  /** Data caches, the smallest first. */
  caches: Cache[];
  memory_bytes: number;
  /** Linux: what steers the clock ("performance", "powersave"), where the system tells. */
  governor: string | null;
}

/** Reads the machine that this process runs on. */
export function hardware(): Hardware {
  const common = { arch: os.arch(), os: `${os.platform()} ${os.release()}`, cores: os.availableParallelism() };
  return { ...common, ...(process.platform === "darwin" ? fromSysctl(sysctl) : fromProc("/")) };
}

type Details = Pick<Hardware, "cpu" | "physical_cores" | "core_kinds" | "features" | "caches" | "memory_bytes" | "governor">;

/** Linux: /proc and /sys under `root`. What a system does not tell is null, empty or "unknown". */
export function fromProc(root: string): Details {
  const read = (file: string): string => {
    try {
      return readFileSync(path.join(root, file), "utf8");
    } catch {
      return "";
    }
  };
  const processors = read("proc/cpuinfo").split(/\n\n+/).filter((block) => /^processor/m.test(block));
  const field = (block: string | undefined, name: string): string | undefined => new RegExp(`^${name}\\s*:\\s*(.+)$`, "m").exec(block ?? "")?.[1]?.trim();
  const places = new Set(processors.flatMap((block) => (field(block, "core id") === undefined ? [] : [`${field(block, "physical id") ?? "0"}/${field(block, "core id")}`])));
  // ARM names no model, only numbers.
  const implementer = field(processors[0], "CPU implementer");
  const arm = implementer === undefined ? undefined : `ARM implementer ${implementer}, part ${field(processors[0], "CPU part")}`;
  const caches: Cache[] = [];
  for (let i = 0; i < 8; i++) {
    const folder = `sys/devices/system/cpu/cpu0/cache/index${i}`;
    const type = read(`${folder}/type`).trim();
    const size = /^(\d+)([KMG]?)/.exec(read(`${folder}/size`));
    if (size === null || (type !== "Data" && type !== "Unified")) continue;
    const unit = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[size[2] as "" | "K" | "M" | "G"];
    caches.push({ level: Number(read(`${folder}/level`)), bytes: Number(size[1]) * unit, shared_by: countList(read(`${folder}/shared_cpu_list`)) });
  }
  return {
    cpu: field(processors[0], "model name") ?? arm ?? "unknown",
    physical_cores: places.size === 0 ? null : places.size,
    core_kinds: kindsOfCores(read, processors.map((block) => ({ cpu: field(block, "processor")!, part: field(block, "CPU part") }))),
    features: ofKernels((field(processors[0], "flags") ?? field(processors[0], "Features") ?? "").split(/\s+/)),
    caches: caches.sort((a, b) => a.level - b.level),
    memory_bytes: Number(/^MemTotal:\s+(\d+) kB$/m.exec(read("proc/meminfo"))?.[1] ?? 0) * 1024,
    governor: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim() || null,
  };
}

/** Vectors, and what multiplies or loads for them: one in ten of what a system lists. */
function ofKernels(names: readonly string[]): string[] {
  return names.filter((name) => /^(?:sse|ssse|avx|fma|f16c|bmi|amx|asimd|neon|sve|sme|i8mm|bf16|fphp|fp$|svei8mm|svebf16|smei|smef|smeb|AVX|SSE|FMA|F16C|BMI|FEAT_)/.test(name));
}

/** Linux: Intel names its two kinds; ARM gives each core a part number and a capacity; others have one kind. */
function kindsOfCores(read: (file: string) => string, processors: readonly { cpu: string; part: string | undefined }[]): Hardware["core_kinds"] {
  const intel = [["performance", "cpu_core"], ["efficiency", "cpu_atom"]].map(([name, folder]) => ({ name: name!, list: read(`sys/devices/${folder}/cpus`) }));
  if (intel.every(({ list }) => list.trim() !== "")) return intel.map(({ name, list }) => ({ name, cores: countList(list) }));
  const kinds = new Map<string, { cores: number; capacity: number }>();
  for (const { cpu, part } of processors) {
    const capacity = Number(read(`sys/devices/system/cpu/cpu${cpu}/cpu_capacity`));
    const key = [part === undefined ? "" : `part ${part}`, capacity === 0 ? "" : `capacity ${capacity}`].filter((text) => text !== "").join(", ");
    kinds.set(key, { cores: (kinds.get(key)?.cores ?? 0) + 1, capacity });
  }
  if (kinds.size < 2) return [];
  return [...kinds].sort(([, a], [, b]) => b.capacity - a.capacity).map(([name, { cores }]) => ({ name, cores }));
}

/** Members of a list such as "0-3,8". */
function countList(list: string): number {
  return list.trim().split(",").reduce((sum, range) => {
    const [from, to] = range.split("-").map(Number);
    return sum + (to === undefined ? 1 : to - from! + 1);
  }, 0);
}

/** macOS: the figures of the fast cores, where there are two kinds. `read` gives "" for what the system does not know. */
export function fromSysctl(read: (name: string) => string): Details {
  const number = (...names: string[]): number => Number(names.map(read).find((text) => /^\d+$/.test(text)) ?? 0);
  const caches = [
    { level: 1, bytes: number("hw.perflevel0.l1dcachesize", "hw.l1dcachesize"), shared_by: 1 },
    { level: 2, bytes: number("hw.perflevel0.l2cachesize", "hw.l2cachesize"), shared_by: Math.max(1, number("hw.perflevel0.cpusperl2")) },
    { level: 3, bytes: number("hw.l3cachesize"), shared_by: Math.max(1, number("hw.logicalcpu")) },
  ];
  return {
    cpu: read("machdep.cpu.brand_string") || "unknown",
    physical_cores: number("hw.physicalcpu") || null,
    core_kinds: number("hw.nperflevels") < 2 ? [] : Array.from({ length: number("hw.nperflevels") }, (_, i) => ({ name: read(`hw.perflevel${i}.name`) || `level ${i}`, cores: number(`hw.perflevel${i}.logicalcpu`) })),
    features: [...ofKernels(`${read("machdep.cpu.features")} ${read("machdep.cpu.leaf7_features")}`.split(/\s+/)), ...armFeatures.filter((name) => number(`hw.optional.arm.${name}`) === 1)],
    caches: caches.filter(({ bytes }) => bytes > 0),
    memory_bytes: number("hw.memsize"),
    governor: null,
  };
}

/** Asked for one by one: macOS has no list of them. */
const armFeatures = ["FEAT_FP16", "FEAT_DotProd", "FEAT_BF16", "FEAT_I8MM", "FEAT_SME", "FEAT_SME2"];

function sysctl(name: string): string {
  const run = Bun.spawnSync(["/usr/sbin/sysctl", "-n", name], { stdin: "ignore", stderr: "ignore" });
  return run.exitCode === 0 ? run.stdout.toString().trim() : "";
}

/** Memory a thread to read from for each level that there is: half of a cache, or of a thread's part of it; for DRAM far more. */
export function readSizes({ caches, memory_bytes }: Hardware, threads: number): { level: string; bytes: number }[] {
  const beyond = caches.filter(({ level }) => level > 1);
  const known = beyond.length > 0 ? beyond : [{ level: 2, bytes: 1 << 20, shared_by: 1 }];
  const dram = Math.min(Math.max(4 * known.at(-1)!.bytes, 64 << 20), 512 << 20, Math.max(memory_bytes / 16, 64 << 20));
  const sizes = known.map(({ level, bytes, shared_by }) => ({ level: `L${level}`, bytes: bytes / 2 / Math.min(threads, shared_by) }));
  return [...sizes, { level: "DRAM", bytes: dram / threads }];
}
