// A small disk of its own for a test: a tmpfs, which root on Linux can mount; and how to leave just so much room on it.
// No assertions here. Used by checkpoint.test.ts and faults.test.ts.
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const mount = (options: string, folder: string): boolean => Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], { stderr: "ignore" }).exitCode === 0;

/** Whether onSmallDisk works here; says on standard error why not. */
export const canMount = ((): boolean => {
  if (process.platform === "linux" && process.getuid?.() === 0) {
    const probe = fs.mkdtempSync(join(tmpdir(), "egg-mount-"));
    const mounted = mount("size=64k", probe);
    if (mounted) Bun.spawnSync(["umount", probe]);
    fs.rmdirSync(probe);
    if (mounted) return true;
  }
  console.error("skipped: full-disk tests need root and mount on Linux");
  return false;
})();

/** Mounts a tmpfs with the options, such as "size=256k", for as long as `use` takes. */
export async function onSmallDisk(options: string, use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(join(tmpdir(), "egg-disk-"));
  if (!mount(options, folder)) throw new Error(`cannot mount a tmpfs with ${options}`);
  try {
    await use(folder);
  } finally {
    Bun.spawnSync(["umount", "-l", folder]);
    fs.rmdirSync(folder);
  }
}

/** Changes the options of such a disk, such as "ro". */
export function remount(disk: string, options: string): void {
  if (Bun.spawnSync(["mount", "-o", `remount,${options}`, disk]).exitCode !== 0) throw new Error(`cannot remount with ${options}`);
}

const filler = (disk: string): string => join(disk, "filler");

/** Leaves exactly `pages` pages of 4 KiB free. */
export function fill(disk: string, pages: number): void {
  const { bavail, bsize } = fs.statfsSync(disk);
  fs.appendFileSync(filler(disk), Buffer.alloc(bavail * bsize - pages * 4096));
}

export function makeRoom(disk: string): void {
  fs.rmSync(filler(disk), { force: true });
}
