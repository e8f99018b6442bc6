/** How sure a classifier is of each digit, as bars. */

/** Shows scores (logits) as shares of one; no scores, no bars. */
export function showScores(at: HTMLElement, scores: Float32Array | undefined): void {
  if (at.childElementCount === 0) at.append(...Array.from({ length: 10 }, (_, digit) => Object.assign(document.createElement('div'), { textContent: String(digit) })));
  const top = scores ? Math.max(...scores) : 0;
  const weights = Array.from({ length: 10 }, (_, digit) => (scores ? Math.exp(scores[digit]! - top) : 0));
  const sum = weights.reduce((n, w) => n + w, 0);
  weights.forEach((w, digit) => {
    const bar = at.children[digit] as HTMLElement;
    bar.style.setProperty('--share', String(sum === 0 ? 0 : w / sum));
    bar.classList.toggle('best', scores !== undefined && scores[digit] === top);
  });
}
