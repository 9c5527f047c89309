// What is checked in the page itself. Returns a list of what is wrong, in words.
const wrong = [];
if (window.hacked !== undefined) wrong.push("a name of the snapshot ran as script");
if (document.querySelector("b[onclick], img, script[src], #models script")) wrong.push("a name of the snapshot became markup");
if (document.documentElement.scrollWidth > window.innerWidth) wrong.push(`the page is ${document.documentElement.scrollWidth} pixels wide in a window of ${window.innerWidth}`);

/** Red, green, blue and opacity of a colour as computed. */
const channels = (value) => { const parts = value.match(/[\d.]+/g).map(Number); return [...parts.slice(0, 3), parts[3] ?? 1]; };
const light = (rgb) => {
  const [r, g, b] = rgb.map((c) => { const s = c / 255; return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const [r, g, b, opacity] = channels(getComputedStyle(one).backgroundColor);
    if (opacity === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
// WCAG 2.2, 1.4.3: 4.5 to 1 for texts of this size.
const seen = new Set();
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.matches("script, style, noscript, .hidden, .skip")) continue;
  const [text, ground] = [channels(getComputedStyle(element).color).slice(0, 3), behind(element)];
  const [x, y] = [light(text), light(ground)].sort((a, b) => b - a);
  const ratio = (x + 0.05) / (y + 0.05);
  const words = `${element.tagName.toLowerCase()}.${element.className}: contrast ${ratio.toFixed(2)}`;
  if (ratio < 4.5 && !seen.has(words)) { seen.add(words); wrong.push(words); }
}
return wrong;
