/** Bytes to a checked ModelView: structure first (wire.ts), then protobufjs, then the rules that hold for every model. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { declaredType } from './data-type.ts';
import { canonicalDomain, functionKey, newestOpset, type AttributeView, type DeclaredType, type FunctionView, type GraphView, type InitializerView, type ModelView, type NodeView, type ValueView } from './model.ts';
import { messages, toSafeInt, type AttributeProto, type FunctionProto, type GraphProto, type ModelProto, type NodeProto, type ValueInfoProto } from './proto.ts';
import { readSparse, readTensor } from './tensor.ts';
import { scan, WireProblem, type NewerFields } from './wire.ts';

interface Source {
  readonly file: string;
  readonly folder: string | undefined;
  readonly newer: NewerFields;
}

/** Decodes a model. `file` names it in messages; `folder` is where its external data may lie. Throws UserError for everything that is wrong with it. */
export function decodeModel(bytes: Uint8Array, file: string, folder: string | undefined): ModelView {
  const { newer, ignored } = check(bytes, file);
  const model = parse(bytes, file);
  if (!model.graph) throw new UserError(`${file} has no graph: it is not an ONNX model, or it was cut off`);
  const opsets = readOpsets(model.opsetImport ?? [], file);
  if (opsets.size === 0) throw new UserError(`${file} imports no opset (ModelProto.opset_import is empty): it is not an ONNX model, or it was cut off`);
  const source: Source = { file, folder, newer };
  const functions = new Map<string, FunctionView>();
  (model.functions ?? []).forEach((proto, i) => {
    const fn = readFunction(proto, `functions[${i}]`, opsets, source);
    const key = functionKey(fn.domain, fn.name, fn.overload);
    if (functions.has(key)) throw new UserError(`${file}: the local function ${fn.domain}.${fn.name}${fn.overload ? `:${fn.overload}` : ''} is defined twice`);
    functions.set(key, fn);
  });
  return {
    file,
    irVersion: toSafeInt(model.irVersion),
    producer: [model.producerName, model.producerVersion].filter(Boolean).join(' '),
    opsets,
    graph: readGraph(model.graph, 'graph', source),
    functions,
    warnings: ignored.map((field) => `${field} is ignored: it does not change what the model computes`),
  };
}

function check(bytes: Uint8Array, file: string): { newer: NewerFields; ignored: readonly string[] } {
  if (bytes.length === 0) throw new UserError(`${file} is empty (0 bytes), not an ONNX model`);
  const other = fileKind(bytes);
  if (other) throw new UserError(`${file} is ${other}, not an ONNX model`);
  try {
    const found = scan(bytes);
    for (const [path, fields] of found.newer) {
      if (fields.has('opaque_type')) throw new Unsupported('opaque types', `${file}: ${path} uses opaque_type, which is not supported`);
    }
    return found;
  } catch (e) {
    if (!(e instanceof WireProblem)) throw e;
    switch (e.kind) {
      case 'foreign':
        throw new UserError(`${file} is not an ONNX model: ${e.message}`);
      case 'truncated':
        throw new UserError(`${file} is truncated or damaged: ${e.message}`);
      case 'deep':
        throw new UserError(`${file} is nested too deeply: ${e.message}`);
      case 'unknown field':
        throw new Unsupported('unknown model field', `${file}: ${e.message}; it was written for a newer ONNX, and ignoring the field could change what the model computes`);
    }
  }
}

/** protobufjs finds what the wire reader leaves to it: numbers that end wrongly inside packed lists. */
function parse(bytes: Uint8Array, file: string): ModelProto {
  try {
    return messages.ModelProto.decode(bytes);
  } catch (e) {
    throw new UserError(`${file} is truncated or damaged: ${e instanceof Error ? e.message : String(e)}`);
  }
}

/** What well-known file a prefix belongs to. */
function fileKind(bytes: Uint8Array): string | undefined {
  const head = String.fromCharCode(...bytes.subarray(0, 16));
  const kinds: readonly (readonly [string, string])[] = [
    ['\x89PNG', 'a PNG image'], ['\xff\xd8\xff', 'a JPEG image'], ['GIF8', 'a GIF image'], ['PK\x03\x04', 'a ZIP archive (a PyTorch .pt or .npz file?)'], ['\x1f\x8b', 'a gzip file'], ['\x89HDF', 'an HDF5 file'],
    ['\x93NUMPY', 'a NumPy .npy file'], ['\0asm', 'a WebAssembly module'], ['\x7fELF', 'an executable'], ['%PDF', 'a PDF file'], ['GGUF', 'a GGUF file'], ['version https://', 'a Git LFS pointer (run git lfs pull)'],
    ['{', 'a JSON file'], ['<', 'an HTML or XML file'],
  ];
  if (head.slice(4, 8) === 'TFL3') return 'a TensorFlow Lite model';
  if (head.slice(4, 8) === 'ORTM') return 'a model in ONNX Runtime\'s ORT format';
  return kinds.find(([magic]) => head.startsWith(magic))?.[1];
}

function readOpsets(imports: NonNullable<ModelProto['opsetImport']>, where: string): Map<string, number> {
  const opsets = new Map<string, number>();
  for (const entry of imports) {
    const domain = canonicalDomain(entry.domain);
    const version = toSafeInt(entry.version);
    if (domain === '' && version > newestOpset) {
      throw new Unsupported(`opset ${version}`, `${where} imports opset ${version}; opsets 1 to ${newestOpset} are supported. Export the model for opset ${newestOpset} or older`);
    }
    if (domain === '' && version < 1) throw new UserError(`${where} imports opset ${version}; opsets are numbered from 1`);
    opsets.set(domain, version);
  }
  return opsets;
}

function readGraph(proto: GraphProto, path: string, source: Source): GraphView {
  const where = (what: string, name: string | null | undefined): string => `${source.file}: ${what} "${name ?? ''}"`;
  const values = (infos: readonly ValueInfoProto[], what: string): ValueView[] =>
    infos.map((v, i) => {
      if (!v.name) throw new UserError(`${source.file}: ${what} ${i} of ${path} has no name`);
      return { name: v.name, type: declaredType(v.type, where(what, v.name)) };
    });
  const inputs = values(proto.input ?? [], 'input');
  const outputs = values(proto.output ?? [], 'output');
  const initializers: InitializerView[] = (proto.initializer ?? []).map((t) => {
    if (!t.name) throw new UserError(`${source.file}: an initializer of ${path} has no name`);
    return { name: t.name, tensor: readTensor(t, where('initializer', t.name), source.folder) };
  });
  for (const sparse of proto.sparseInitializer ?? []) {
    const name = sparse.values?.name ?? '';
    initializers.push({ name, tensor: readSparse(sparse, where('sparse initializer', name), source.folder) });
  }
  const valueInfo = new Map<string, DeclaredType>();
  for (const v of proto.valueInfo ?? []) {
    const type = declaredType(v.type, where('value', v.name));
    if (type && v.name) valueInfo.set(v.name, type);
  }
  return {
    name: proto.name ?? '',
    inputNames: inputs.map((v) => v.name),
    outputNames: outputs.map((v) => v.name),
    nodes: readNodes(proto.node ?? [], path, source),
    initializers,
    inputs,
    outputs,
    valueInfo,
  };
}

function readNodes(nodes: readonly NodeProto[], path: string, source: Source): NodeView[] {
  return nodes.map((proto, i) => {
    const at = `${path}.node[${i}]`;
    const outputs = proto.output ?? [];
    const name = proto.name || outputs.find((o) => o !== '') || `#${i}`;
    if (!proto.opType) throw new UserError(`${source.file}: node "${name}" (${at}) has no op type`);
    const attributes = new Map<string, AttributeView>();
    (proto.attribute ?? []).forEach((a, k) => {
      if (!a.name) throw new UserError(`${source.file}: attribute ${k} of ${proto.opType} node "${name}" has no name`);
      if (attributes.has(a.name)) throw new UserError(`${source.file}: ${proto.opType} node "${name}" has two attributes "${a.name}"`);
      attributes.set(a.name, readAttribute(a, `${at}.attribute[${k}]`, source));
    });
    const overload = source.newer.get(at)?.get('overload')?.at(-1);
    return { name, opType: proto.opType, domain: canonicalDomain(proto.domain), overload: overload ? text(overload) : '', inputs: proto.input ?? [], outputs, attributes };
  });
}

function readAttribute(proto: AttributeProto, path: string, source: Source): AttributeView {
  return {
    name: proto.name ?? '',
    proto,
    refersTo: proto.refAttrName || undefined,
    path,
    graph: proto.g && Object.hasOwn(proto, 'g') ? readGraph(proto.g, `${path}.g`, source) : undefined,
  };
}

function readFunction(proto: FunctionProto, path: string, modelOpsets: ReadonlyMap<string, number>, source: Source): FunctionView {
  if (!proto.name) throw new UserError(`${source.file}: ${path} has no name`);
  const domain = canonicalDomain(proto.domain);
  const newer = source.newer.get(path);
  const defaults = new Map<string, AttributeView>();
  (newer?.get('attribute_proto') ?? []).forEach((bytes, i) => {
    const attribute = readAttribute(messages.AttributeProto.decode(bytes), `${path}.attribute_proto[${i}]`, source);
    defaults.set(attribute.name, attribute);
  });
  const overload = newer?.get('overload')?.at(-1);
  return {
    name: proto.name,
    domain,
    overload: overload ? text(overload) : '',
    inputs: proto.input ?? [],
    outputs: proto.output ?? [],
    attributes: [...(proto.attribute ?? []), ...defaults.keys()],
    defaults,
    opsets: new Map([...modelOpsets, ...readOpsets(proto.opsetImport ?? [], `${source.file}: local function ${domain}.${proto.name}`)]),
    nodes: readNodes(proto.node ?? [], path, source),
  };
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
