/** TensorProto files, as the official ONNX tests keep their inputs and outputs. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Tensor } from '../../ir/type.ts';
import { readModelFile } from './external.ts';
import { messages } from './proto.ts';
import { readTensor } from './tensor.ts';
import { scan, WireProblem } from './wire.ts';

/** Reads a serialized TensorProto and the name it carries. Throws UserError where the file is no tensor of numbers or bools. */
export function readTensorFile(path: string): { readonly name: string; readonly tensor: Tensor } {
  const bytes = readModelFile(path);
  try {
    scan(bytes, 'TensorProto');
  } catch (e) {
    if (e instanceof WireProblem) throw new UserError(`${path} is not a serialized ONNX tensor: ${e.message}`);
    throw e;
  }
  const proto = messages.TensorProto.decode(bytes);
  const tensor = readTensor(proto, path, undefined);
  if ('kind' in tensor) throw new Unsupported('string tensors', `${path} holds strings; tensors have to hold numbers or bools`);
  return { name: proto.name ?? '', tensor };
}
