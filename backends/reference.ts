/** The reference backend: the interpreter that every other backend is judged against. */
export { evaluate, type EvaluateOptions, type Evaluation } from '../ir/evaluate.ts';
