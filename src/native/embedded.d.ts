// The names that scripts/build.ts puts into the executable. Not there when the sources run under `bun` or `bun test`:
// ask `typeof EGG_VERSION === "undefined"` before reading one.
// Read next: scripts/build.ts (where the values come from), library.ts (what the embedded library is for).

/** `version` of package.json. */
declare const EGG_VERSION: string | undefined;

/** Commit that the executable was built from, with "-dirty" behind it when files differed; "" outside a checkout. */
declare const EGG_COMMIT: string | undefined;

/** SHA-256 of the embedded kernel library, 64 hex digits. */
declare const EGG_LIB_SHA256: string | undefined;
