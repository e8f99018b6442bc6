/** tilewright: compiles ONNX models. `tilewright/runtime` loads and runs what comes out, without this. */
export { compile, compileGraph, defaultFeatures, type Artifact, type CompiledGraph, type CompileOptions } from './cli/driver/compile.ts';
export { readTarget } from './cli/driver/target-file.ts';
export { resetHead, type ResetHeadOptions } from './cli/driver/reset-head.ts';
export { InternalError, Unsupported, UserError } from './ir/diagnostic.ts';
export { UnboundInputs } from './frontend/index.ts';
export type { TileTarget } from './passes/tile/target.ts';
