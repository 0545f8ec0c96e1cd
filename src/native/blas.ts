// The machine's own library of matrix products, where there is one: loaded to be compared with, never to train with.
// Not egg's kernels (float.ts). Used by src/bench; read next: src/bench/levels.ts.
import { dlopen } from "bun:ffi";
import { EggError } from "../errors.ts";

export interface Blas {
  /** What the library says that it is. */
  name: string;
  path: string;
  /** Threads for the next products. False where the library does not let itself be told. */
  useThreads(threads: number): boolean;
  /** c = op(a) op(b): f32, row-major, dense. `ta`: a is stored (k, m); `tb`: b is stored (n, k). */
  multiply(c: Float32Array, a: Float32Array, b: Float32Array, sizes: { m: number; n: number; k: number; ta?: boolean; tb?: boolean }): void;
}

/** Names by which systems know it; the loader looks them up in its own folders. */
const candidates: Record<string, readonly string[]> = {
  linux: ["libopenblas.so.0", "libopenblas.so", "/usr/lib64/libopenblasp.so.0"],
  darwin: ["/System/Library/Frameworks/Accelerate.framework/Accelerate", "/opt/homebrew/opt/openblas/lib/libopenblas.dylib"],
};

const rowMajor = 101;
const plain = 111;
const transposed = 112;

const product = {
  cblas_sgemm: {
    args: ["i32", "i32", "i32", "i32", "i32", "i32", "f32", "buffer", "i32", "buffer", "i32", "f32", "buffer", "i32"],
    returns: "void",
  },
} as const;

let found: Blas | string | null = null;

/** The library (EGG_BLAS names a file to take instead), or why there is none. Looked for once. */
export function openBlas(): Blas | string {
  return (found ??= look());
}

function look(): Blas | string {
  const named = process.env["EGG_BLAS"];
  const paths = named !== undefined && named !== "" ? [named] : (candidates[process.platform] ?? []);
  const reasons: string[] = [];
  for (const path of paths) {
    try {
      return bind(path);
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
    }
  }
  if (named !== undefined && named !== "") return `EGG_BLAS: ${named} could not be loaded: ${reasons[0]}`;
  const advice = process.platform === "linux" ? "; Debian and Ubuntu have it as libopenblas0" : "";
  return `no BLAS is installed (looked for ${paths.join(", ")})${advice}`;
}

function bind(path: string): Blas {
  const { symbols } = dlopen(path, product);
  const own = openblas(path);
  return {
    name: own?.name ?? (path.includes("Accelerate") ? "Accelerate" : path),
    path,
    useThreads: (threads) => own?.useThreads(threads) ?? false,
    multiply(c, a, b, { m, n, k, ta = false, tb = false }) {
      if (a.length !== m * k || b.length !== k * n || c.length !== m * n) throw new EggError("internal", `[blas] ${a.length}, ${b.length}, ${c.length} values are no product of ${m} x ${k} and ${k} x ${n}.`);
      symbols.cblas_sgemm(rowMajor, ta ? transposed : plain, tb ? transposed : plain, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n);
    },
  };
}

/** What OpenBLAS offers beyond the standard; null for other libraries. */
function openblas(path: string): { name: string; useThreads(threads: number): boolean } | null {
  try {
    const { symbols } = dlopen(path, {
      openblas_get_config: { args: [], returns: "cstring" },
      openblas_get_corename: { args: [], returns: "cstring" },
      openblas_set_num_threads: { args: ["i32"], returns: "void" },
    });
    const version = /OpenBLAS [\d.]+/.exec(String(symbols.openblas_get_config()))?.[0] ?? "OpenBLAS";
    return {
      name: `${version} (${String(symbols.openblas_get_corename())} kernels)`,
      useThreads(threads) {
        symbols.openblas_set_num_threads(threads);
        return true;
      },
    };
  } catch {
    return null;
  }
}
