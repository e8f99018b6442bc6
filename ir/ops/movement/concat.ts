/** Concatenation. */
import { plain, put, type Axes, type Dim, type Piece } from '../../axes.ts';
import { num, type OpDef } from '../../op.ts';
import { rowMajor, showType } from '../../type.ts';
import { check, fresh, namesOf, nth, requireAxis, requireSameDType } from '../helpers.ts';
import { copyStrided } from '../strided.ts';

export const concat: OpDef = {
  name: 'concat',
  doc: 'the operands one after the other along an axis',
  family: 'move',
  operands: ['xs...'],
  attrs: { axis: { kind: 'number', default: 'required' } },
  infer(operands, attrs) {
    const axis = num(attrs, 'axis');
    check(operands.length > 0, () => 'has no operands, expected at least one');
    const first = nth(operands, 0);
    requireAxis(axis, first);
    for (const x of operands) {
      requireSameDType(first, x);
      check(x.shape.length === first.shape.length && x.shape.every((d, i) => i === axis || d === first.shape[i]), () => `${showType(first)} and ${showType(x)} differ outside axis ${axis}`);
    }
    return [{ dtype: first.dtype, shape: first.shape.map((d, i) => (i === axis ? operands.reduce((n, x) => n + x.shape[i]!, 0) : d)) }];
  },
  axes(operands, attrs, [y]): Axes {
    const axis = num(attrs, 'axis');
    const shared = y!.shape.map((size, i): Dim => ({ name: `d${i}`, size, role: 'parallel' }));
    const own = operands.map((x, k): Dim => ({ name: `d${axis}_${k}`, size: x.shape[axis]!, role: 'parallel' }));
    let offset = 0;
    const pieces = own.map((d, k): Piece => {
      const dims = shared.map((s, i) => (i === axis ? d : s));
      const piece: Piece = {
        dims: namesOf(dims),
        reads: operands.map((_, j) => (j === k ? dims.map((s) => plain(s.name)) : null)),
        writes: dims.map((s, i) => ({ ...put(s.name), plus: i === axis ? offset : 0 })),
        indexed: [],
      };
      offset += d.size;
      return piece;
    });
    return { space: [...shared.filter((_, i) => i !== axis), ...own], stages: [{ pieces, combine: 'none', product: false }] };
  },
  reference(operands, attrs, [type]) {
    const y = fresh(type!);
    const strides = rowMajor(y.shape);
    let offset = 0;
    for (const x of operands) {
      copyStrided(x.data, y.data, x.shape, { strides: rowMajor(x.shape) }, { strides, offset });
      offset += x.shape[num(attrs, 'axis')]! * strides[num(attrs, 'axis')]!;
    }
    return [y];
  },
  grad: {
    build(b, op, [g]) {
      const axis = num(op.attrs, 'axis');
      let from = 0;
      return op.operands.map(({ type: { shape } }) => {
        const starts = shape.map((_, i) => (i === axis ? from : 0));
        from += shape[axis]!;
        return g && b.slice(g, starts, shape);
      });
    },
  },
};
