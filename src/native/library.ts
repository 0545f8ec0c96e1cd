// Finds a place from which the operating system lets us load the kernel library, and loads it, on first use only.
// Not the table of symbols and not the check of their version: those are in abi.ts, which calls this.
// Read next: abi.ts, then scripts/build.ts for how the library gets into the executable.
import { dlopen, type FFIFunction, type Library } from "bun:ffi";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync, closeSync, constants, existsSync, fstatSync, fsyncSync, lstatSync, mkdirSync, openSync, readFileSync, renameSync, unlinkSync, writeSync,
} from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { EggError } from "../errors.ts";

type Symbols = Record<string, FFIFunction>;

/**
 * Where the library was found: named by EGG_NATIVE_LIB, the one that came with the program, a copy of it in a cache
 * folder, or a copy that lives in memory only.
 */
export type LibrarySource = "override" | "embedded" | "cache" | "memory";

export interface LoadedLibrary<S extends Symbols> {
  symbols: Library<S>["symbols"];
  path: string;
  how: LibrarySource;
}

const suffix = process.platform === "darwin" ? "dylib" : "so";
const missingSymbol = /^Symbol "/; // Bun opened the file; it is not our library, or one of another version

/**
 * Loads the kernel library and keeps it until the process ends (closing it is undefined behaviour in bun:ffi).
 * Call it once in a process: a second copy in memory would have its own globals.
 *
 * @param symbols the functions to look up, as bun:ffi describes them
 * @returns the bound functions, the path that was loaded, and how it was found
 * @throws EggError("resources") that lists each place tried with its reason
 */
export function loadLibrary<S extends Symbols>(symbols: S): LoadedLibrary<S> {
  const attempts: string[] = [];
  const open = (path: string, how: LibrarySource): LoadedLibrary<S> | null => {
    try {
      return { symbols: dlopen(path, symbols).symbols, path, how };
    } catch (error) {
      const reason = reasonOf(error);
      if (missingSymbol.test(reason)) {
        throw new EggError("resources", `[native] ${path} is not the library of this version of egg: ${reason}.`, {
          hint: how === "override"
            ? "Build it again with `npm run build`, or unset EGG_NATIVE_LIB."
            : "Get egg again, or build it again with `npm run build`.",
        });
      }
      attempts.push(`${path}: ${reason}`);
      return null;
    }
  };

  const override = process.env["EGG_NATIVE_LIB"];
  if (override !== undefined && override !== "") {
    const loaded = open(resolve(override), "override");
    if (loaded !== null) return loaded;
    throw new EggError("resources", `[native] EGG_NATIVE_LIB could not be loaded: ${attempts[0]}.`, {
      hint: "Name a kernel library that exists and may be executed, or unset EGG_NATIVE_LIB.",
    });
  }

  const shipped = shippedPath();
  const direct = open(shipped, "embedded");
  if (direct !== null) return direct;

  let bytes: Uint8Array;
  try {
    bytes = readFileSync(shipped);
  } catch (error) {
    throw new EggError("resources", `[native] the kernel library ${shipped} cannot be read: ${reasonOf(error)}.`, {
      hint: "Build it with `npm run build`.",
    });
  }
  const sha256 = typeof EGG_LIB_SHA256 === "undefined" ? hash(bytes) : EGG_LIB_SHA256;

  for (const folder of cacheFolders()) {
    let file: string;
    try {
      file = cachedCopy(folder, bytes, sha256);
    } catch (error) {
      attempts.push(`${folder}: ${reasonOf(error)}`);
      continue;
    }
    const loaded = open(file, "cache");
    if (loaded !== null) return loaded;
  }

  if (process.platform === "linux") {
    try {
      const loaded = open(memoryCopy(bytes), "memory");
      if (loaded !== null) return loaded;
    } catch (error) {
      attempts.push(`memory: ${reasonOf(error)}`);
    }
  }

  throw new EggError("resources", `[native] the kernel library could not be loaded from any place:\n${attempts.map((line) => `  ${line}`).join("\n")}`, {
    hint: "Set EGG_CACHE_DIR to a folder that you may write to and that allows execution.",
  });
}

/** The library that came with this program: inside the executable, or what the last build left behind. */
function shippedPath(): string {
  if (typeof EGG_LIB_SHA256 === "undefined") {
    const built = resolve(import.meta.dir, "../../zig-out");
    const checked = `${built}/test/lib/libegg.${suffix}`; // with Zig's safety checks; `npm test` makes it
    return process.env["NODE_ENV"] === "test" && existsSync(checked) ? checked : `${built}/lib/libegg.${suffix}`;
  }
  return require("egg:native") as string; // a path: scripts/build.ts bundles the library as a file
}

/** Folders for a copy, the user's own choice first. A relative HOME or XDG_CACHE_HOME counts as none. */
function cacheFolders(): string[] {
  const uid = process.getuid!();
  const folders: string[] = [];
  const chosen = process.env["EGG_CACHE_DIR"];
  // A folder of our own in it: the chosen one may belong to somebody else and may be open to others.
  if (chosen !== undefined && chosen !== "") folders.push(join(resolve(chosen), `egg-${uid}`));
  const xdg = process.env["XDG_CACHE_HOME"];
  if (xdg !== undefined && isAbsolute(xdg)) folders.push(join(xdg, "egg"));
  const home = homedir();
  if (isAbsolute(home)) folders.push(process.platform === "darwin" ? join(home, "Library", "Caches", "egg") : join(home, ".cache", "egg"));
  folders.push(`/var/tmp/egg-${uid}`);
  return folders;
}

/**
 * A copy of the library in `folder` that nobody else can have written, made only when there is none yet.
 * Processes that start together each write their own file and rename it over the same name.
 *
 * @returns the path of the copy
 * @throws Error with the reason in one phrase
 */
function cachedCopy(folder: string, bytes: Uint8Array, sha256: string): string {
  const uid = process.getuid!();
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const state = lstatSync(folder);
  if (!state.isDirectory()) throw new Error("is not a folder");
  if (state.uid !== uid) throw new Error(`belongs to user ${state.uid}, not to user ${uid}`);
  if ((state.mode & 0o022) !== 0) chmodSync(folder, 0o700);

  const file = join(folder, `libegg-${sha256.slice(0, 16)}.${suffix}`);
  if (isOurs(file, bytes.length, sha256, uid)) return file;

  const temporary = join(folder, `.libegg-${process.pid}-${randomBytes(6).toString("hex")}`);
  const descriptor = openSync(temporary, "wx", 0o700);
  try {
    try {
      writeAll(descriptor, bytes);
      fsyncSync(descriptor); // a name that outlives a power cut must not point to half a library
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, file);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  }
  return file;
}

/** True when `file` is a regular file of this user, closed to other writers, that holds exactly the library. */
function isOurs(file: string, size: number, sha256: string, uid: number): boolean {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return false; // none yet, a link, or not readable: written anew
  }
  try {
    const state = fstatSync(descriptor);
    return state.isFile() && state.uid === uid && (state.mode & 0o022) === 0 && state.size === size && hash(readFileSync(descriptor)) === sha256;
  } finally {
    closeSync(descriptor);
  }
}

/** A copy of the library in an anonymous file in memory (Linux). Needs no disk, only /proc. */
function memoryCopy(bytes: Uint8Array): string {
  const { symbols } = dlopen("libc.so.6", { memfd_create: { args: ["ptr", "u32"], returns: "i32" } });
  const name = Buffer.from("egg\0");
  const closeOnExec = 1;
  const descriptor = symbols.memfd_create(name, closeOnExec);
  if (descriptor < 0) throw new Error("memfd_create is not allowed here");
  writeAll(descriptor, bytes);
  return `/proc/self/fd/${descriptor}`; // stays open: the path is the library's name from now on
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done);
}

function hash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
