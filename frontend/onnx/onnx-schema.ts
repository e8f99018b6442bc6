/** The fields of onnx.proto as of IR version 14 (opset 28), as far as the wire reader has to know them. */

/** A scalar kind, or the name of a message. */
export type FieldKind = 'varint' | 'varints' | 'float' | 'floats' | 'doubles' | 'bytes' | (string & {});

/** `newer`: onnx-proto drops it, the wire reader collects it. `ignored`: has no meaning for inference and is reported as a warning. */
export type Fate = 'decoded' | 'newer' | 'ignored';

export interface Field {
  readonly name: string;
  readonly kind: FieldKind;
  readonly repeated: boolean;
  readonly fate: Fate;
}

/** `name kind`, `name kind*` where repeated, then ` newer` or ` ignored` where it is not decoded. */
function fields(rows: Readonly<Record<number, string>>): Readonly<Record<number, Field>> {
  return Object.fromEntries(
    Object.entries(rows).map(([number, row]) => {
      const [name = '', kind = '', fate = 'decoded'] = row.split(' ');
      return [number, { name, kind: kind.replace('*', ''), repeated: kind.endsWith('*'), fate: fate as Fate }];
    }),
  );
}

const entry = fields({ 1: 'key bytes', 2: 'value bytes' });

export const schema: Readonly<Record<string, Readonly<Record<number, Field>>>> = {
  ModelProto: fields({
    1: 'ir_version varint', 8: 'opset_import OperatorSetIdProto*', 2: 'producer_name bytes', 3: 'producer_version bytes', 4: 'domain bytes', 5: 'model_version varint',
    6: 'doc_string bytes', 7: 'graph GraphProto', 14: 'metadata_props StringStringEntryProto*', 20: 'training_info bytes* ignored', 25: 'functions FunctionProto*', 26: 'configuration bytes* ignored',
  }),
  OperatorSetIdProto: fields({ 1: 'domain bytes', 2: 'version varint' }),
  StringStringEntryProto: entry,
  GraphProto: fields({
    1: 'node NodeProto*', 2: 'name bytes', 5: 'initializer TensorProto*', 15: 'sparse_initializer SparseTensorProto*', 10: 'doc_string bytes', 11: 'input ValueInfoProto*', 12: 'output ValueInfoProto*',
    13: 'value_info ValueInfoProto*', 14: 'quantization_annotation bytes*', 16: 'metadata_props bytes*', 3: 'ir_version varint', 4: 'producer_version bytes', 6: 'producer_tag bytes', 7: 'domain bytes',
  }),
  NodeProto: fields({
    1: 'input bytes*', 2: 'output bytes*', 3: 'name bytes', 4: 'op_type bytes', 7: 'domain bytes', 8: 'overload bytes newer', 5: 'attribute AttributeProto*', 6: 'doc_string bytes',
    9: 'metadata_props bytes*', 10: 'device_configurations bytes* ignored',
  }),
  AttributeProto: fields({
    1: 'name bytes', 21: 'ref_attr_name bytes', 13: 'doc_string bytes', 20: 'type varint', 2: 'f float', 3: 'i varint', 4: 's bytes', 5: 't TensorProto', 6: 'g GraphProto', 22: 'sparse_tensor SparseTensorProto',
    14: 'tp TypeProto', 7: 'floats floats', 8: 'ints varints', 9: 'strings bytes*', 10: 'tensors TensorProto*', 11: 'graphs GraphProto*', 23: 'sparse_tensors SparseTensorProto*', 15: 'type_protos TypeProto*',
  }),
  TensorProto: fields({
    1: 'dims varints', 2: 'data_type varint', 3: 'segment Segment', 4: 'float_data floats', 5: 'int32_data varints', 6: 'string_data bytes*', 7: 'int64_data varints', 8: 'name bytes', 12: 'doc_string bytes',
    9: 'raw_data bytes', 13: 'external_data StringStringEntryProto*', 14: 'data_location varint', 10: 'double_data doubles', 11: 'uint64_data varints', 16: 'metadata_props bytes*',
  }),
  Segment: fields({ 1: 'begin varint', 2: 'end varint' }),
  SparseTensorProto: fields({ 1: 'values TensorProto', 2: 'indices TensorProto', 3: 'dims varints' }),
  ValueInfoProto: fields({ 1: 'name bytes', 2: 'type TypeProto', 3: 'doc_string bytes', 4: 'metadata_props bytes*' }),
  TypeProto: fields({
    1: 'tensor_type TensorType', 4: 'sequence_type ElementType', 5: 'map_type MapType', 9: 'optional_type ElementType', 8: 'sparse_tensor_type TensorType', 7: 'opaque_type OpaqueType newer', 6: 'denotation bytes',
  }),
  TensorType: fields({ 1: 'elem_type varint', 2: 'shape TensorShapeProto' }),
  ElementType: fields({ 1: 'elem_type TypeProto' }),
  MapType: fields({ 1: 'key_type varint', 2: 'value_type TypeProto' }),
  OpaqueType: fields({ 1: 'domain bytes', 2: 'name bytes' }),
  TensorShapeProto: fields({ 1: 'dim Dimension*' }),
  Dimension: fields({ 1: 'dim_value varint', 2: 'dim_param bytes', 3: 'denotation bytes' }),
  FunctionProto: fields({
    1: 'name bytes', 2: 'since_version varint', 3: 'status varint', 4: 'input bytes*', 5: 'output bytes*', 6: 'attribute bytes*', 11: 'attribute_proto AttributeProto* newer', 7: 'node NodeProto*', 8: 'doc_string bytes',
    9: 'opset_import OperatorSetIdProto*', 10: 'domain bytes', 13: 'overload bytes newer', 12: 'value_info ValueInfoProto*', 14: 'metadata_props bytes*',
  }),
};
