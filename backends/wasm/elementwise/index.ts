/** Elementwise code: one op or a chain of them, on one element of any dtype or on four lanes. */
export { scalarChain, scalarOf, vecChain, isVectorChain, type ScalarValues, type VecValues } from './body.ts';
export { emitScalar, type ElementwiseName } from './scalar.ts';
export { constantVec, emitVec, gatherVec, scatterVec, isLaneType, isVectorOp, laneOf, loadVec, splatElement, storeVec, type VecOptions } from './vector.ts';
