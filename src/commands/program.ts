// What this program calls itself. The version and commit are put in by scripts/build.ts.
// Not the machine it runs on: info.ts.

export const program = {
  version: typeof EGG_VERSION === "undefined" ? "development" : EGG_VERSION,
  commit: typeof EGG_COMMIT === "undefined" || EGG_COMMIT === "" ? null : EGG_COMMIT,
};
