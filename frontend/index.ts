/** Frontends: models of other formats to graphs. */
export { importModel, type DeclaredInput, type ImportedModel, type ImportOptions } from './onnx/import.ts';
export { UnboundInputs } from './onnx/lowering.ts';
export { readTensorFile } from './onnx/tensor-file.ts';
export { exportModel, type ExportOptions, type FreeBatch } from './onnx/export.ts';
