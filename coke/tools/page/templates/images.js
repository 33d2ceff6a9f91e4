// Pictures of rows. IMAGES.of has, by row: the picture in base64 or null, the key, the class or -1.
function element(tag, className, text) {
  const found = document.createElement(tag);
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text;
  return found;
}

function className(number) {
  return number < 0 ? "no class" : IMAGES.classes[number];
}

function caption(row) {
  const [, key, label] = IMAGES.of[row];
  return label < 0 ? key : key + "\nclass: " + className(label);
}

function picture(row, more) {
  const [data, key] = IMAGES.of[row];
  const found = element(data ? "img" : "span", data ? "picture" : "picture key", data ? undefined : key);
  if (data) {
    found.src = "data:image/" + IMAGES.kind + ";base64," + data;
    found.alt = key;
    found.width = found.height = IMAGES.shown;
  } else {
    found.style.maxWidth = 2 * IMAGES.shown + "px";
  }
  found.title = caption(row) + (more ? "\n" + more : "");
  return found;
}

function choice(label, options, onChange) {
  const whole = element("label", "", label + " "), select = element("select");
  for (const [value, text] of options) {
    const option = element("option", "", text);
    option.value = value;
    select.append(option);
  }
  select.addEventListener("change", () => onChange(select.value));
  whole.append(select);
  return whole;
}

const number = (value, digits) => value === null ? "–" : value.toFixed(digits);
const count = (value) => value.toLocaleString("en");
const percent = (share) => (100 * share).toFixed(0) + " %";
