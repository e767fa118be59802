// Every text that is seen and has less contrast with what is behind it than WCAG 2 AA asks for.
const channels = (colour) => {
  const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
  return { light: [red, green, blue].map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }), alpha };
};
const luminance = ([red, green, blue]) => 0.2126 * red + 0.7152 * green + 0.0722 * blue;
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const found = channels(getComputedStyle(at).backgroundColor);
    if (found.alpha === 1) return found.light;
    if (found.alpha !== 0) throw new Error(`half transparent: ${at.className}`);
  }
  return [1, 1, 1];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const poor = [];
let seen = 0;
while (walker.nextNode()) {
  const parent = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !parent.checkVisibility() || parent.closest("noscript, script, template")) continue;
  seen += 1;
  const style = getComputedStyle(parent);
  const [one, other] = [luminance(channels(style.color).light), luminance(behind(parent))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
}
return { seen, poor };
