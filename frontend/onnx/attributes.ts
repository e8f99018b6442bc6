/** Typed access to a node's attributes; references to a function's attributes are already resolved. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Tensor } from '../../ir/type.ts';
import { declaredType, elementType } from './data-type.ts';
import type { Attributes, ReadAttribute, StringTensor, Subgraph } from './lowering.ts';
import type { AttributeView, GraphView } from './model.ts';
import { toSafeInt, type AttributeProto } from './proto.ts';
import { readSparse, readTensor } from './tensor.ts';

/** An attribute with the place its subgraph sees names from. */
export interface BoundAttribute<Scope> {
  readonly view: AttributeView;
  readonly scope: Scope;
}

/** A subgraph attribute with the scope it captures from. */
export interface BoundSubgraph<Scope> extends Subgraph {
  readonly view: GraphView;
  readonly scope: Scope;
}

/** AttributeProto.AttributeType, the fields that hold each type, and its name in messages. */
const kinds = {
  float: [1, 'f', 'a float'], int: [2, 'i', 'an int'], string: [3, 's', 'a string'], tensor: [4, 't', 'a tensor'], graph: [5, 'g', 'a graph'], floats: [6, 'floats', 'floats'], ints: [7, 'ints', 'ints'],
  strings: [8, 'strings', 'strings'], tensors: [9, 'tensors', 'tensors'], graphs: [10, 'graphs', 'graphs'], sparse: [11, 'sparseTensor', 'a sparse tensor'], type: [13, 'tp', 'a type'],
} as const satisfies Record<string, readonly [number, keyof AttributeProto, string]>;
type Kind = keyof typeof kinds;

/** Wraps attributes. `where` begins messages and names the node; `folder` is where external data of tensor attributes may lie. */
export function attributesOf<Scope>(attributes: ReadonlyMap<string, BoundAttribute<Scope>>, where: string, folder: string | undefined): Attributes {
  const say = (name: string): string => `${where}: attribute ${name}`;

  /** The attribute if it is there, checked to be of one of these kinds. */
  const find = (name: string, ...allowed: readonly Kind[]): BoundAttribute<Scope> | undefined => {
    const found = attributes.get(name);
    if (!found) return undefined;
    const kind = kindOf(found.view.proto, allowed);
    if (kind === undefined || !allowed.includes(kind)) {
      throw new UserError(`${say(name)} must be ${allowed.map((k) => kinds[k][2]).join(' or ')}, but is ${kind === undefined ? 'empty' : kinds[kind][2]}`);
    }
    return found;
  };
  function reader<T>(read: (attribute: BoundAttribute<Scope>, name: string) => T, ...allowed: readonly Kind[]): ReadAttribute<T> {
    function get(name: string, ...otherwise: readonly unknown[]): T {
      const found = find(name, ...allowed);
      if (found) return read(found, name);
      if (otherwise.length === 0) throw new UserError(`${say(name)} is missing; the op requires it`);
      return otherwise[0] as T;
    }
    return get;
  }
  const denseTensor = (a: BoundAttribute<Scope>, name: string): Tensor | StringTensor =>
    a.view.proto.sparseTensor ? readSparse(a.view.proto.sparseTensor, say(name), folder) : readTensor(a.view.proto.t ?? {}, say(name), folder);
  const utf8 = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  const int = reader((a) => toSafeInt(a.view.proto.i), 'int');

  return {
    has: (name) => attributes.has(name),
    names: [...attributes.keys()],
    int,
    float: reader((a) => a.view.proto.f ?? 0, 'float'),
    string: reader((a) => utf8(a.view.proto.s ?? new Uint8Array()), 'string'),
    ints: reader<readonly number[]>((a) => (a.view.proto.ints ?? []).map(toSafeInt), 'ints'),
    floats: reader<readonly number[]>((a) => [...(a.view.proto.floats ?? [])], 'floats'),
    strings: reader<readonly string[]>((a) => (a.view.proto.strings ?? []).map(utf8), 'strings'),
    tensor: reader(
      (a, name) => {
        const t = denseTensor(a, name);
        if ('kind' in t) throw new Unsupported('string tensors', `${say(name)} holds strings, which are not supported here`);
        return t;
      },
      'tensor',
      'sparse',
    ),
    stringTensor: reader((a, name) => {
      const t = denseTensor(a, name);
      if (!('kind' in t)) throw new UserError(`${say(name)} must hold strings, but holds ${t.dtype}`);
      return t;
    }, 'tensor'),
    graph: reader<Subgraph>((a, name) => {
      const view = a.view.graph;
      if (!view) throw new UserError(`${say(name)} has no graph`);
      const bound: BoundSubgraph<Scope> = { name: view.name, inputNames: view.inputNames, outputNames: view.outputNames, view, scope: a.scope };
      return bound;
    }, 'graph'),
    tensorDType(name) {
      const proto = find(name, 'tensor', 'sparse')?.view.proto;
      if (!proto) return undefined;
      return elementType((proto.sparseTensor ? proto.sparseTensor.values?.dataType : proto.t?.dataType) ?? 0, say(name));
    },
    dtype(name, otherwise) {
      if (!attributes.has(name) && otherwise) return otherwise;
      const dtype = elementType(int(name), say(name));
      if (dtype === 'string') throw new Unsupported('strings', `${say(name)} asks for strings, which are not supported`);
      return dtype;
    },
    type(name) {
      const type = declaredType(find(name, 'type')?.view.proto.tp, say(name));
      if (!type) return undefined;
      const { kind, dtype } = type;
      if (kind !== 'tensor' && kind !== 'sequence' && kind !== 'optional') throw new Unsupported(`${kind} types`, `${say(name)} is a ${kind} type, which is not supported`);
      return { kind, dtype };
    },
  };
}

/** The kind of an attribute. Models of IR version 1 leave `type` out; the field that is set tells, and an empty list can be any list. */
function kindOf(proto: AttributeProto, allowed: readonly Kind[]): Kind | undefined {
  const all = Object.keys(kinds) as Kind[];
  if (proto.type) return all.find((k) => kinds[k][0] === proto.type);
  const isSet = (k: Kind): boolean => {
    const field = proto[kinds[k][1]];
    return Array.isArray(field) ? field.length > 0 : Object.hasOwn(proto, kinds[k][1]);
  };
  return all.find(isSet) ?? allowed.find((k) => Array.isArray(proto[kinds[k][1]]));
}
