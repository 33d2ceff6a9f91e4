// The map of a sample: two dimensions, coloured by class or cluster, a picture where the mouse is.
function sample_map(root, data) {
  const LISTED = 20; // categories that have an entry in the legend; more are coloured alone
  const NAMED = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", "#332288",
    "#aa4499", "#117733", "#661100", "#6699cc", "#888888", "#44aa99", "#dd1c77", "#7f7f00", "#004d66", "#b15928", "#5e3c99"];
  let layout = data.layouts[data.layouts.length - 1], colour = data.colours[0];
  const controls = element("div", "controls"), plot = element("div", "plot"), hover = element("div", "hover");
  if (data.layouts.length > 1) {
    const found = choice("Layout", data.layouts.map((l, i) => [i, l.name]), (i) => { layout = data.layouts[i]; draw(); });
    found.querySelector("select").selectedIndex = data.layouts.length - 1;
    controls.append(found);
  }
  if (data.colours.length > 1) controls.append(
    choice("Coloured by", data.colours.map((c, i) => [i, c.name]), (i) => { colour = data.colours[i]; draw(); }));
  hover.hidden = true;
  root.append(controls, plot, hover);

  // plotly.js reads some tags in names.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const named = (value) => colour.name === "class" ? className(value) : value < 0 ? "no cluster" : "cluster " + value;
  // Neighbouring numbers get far hues.
  const hue = (value) => value < 0 ? "#c4cad0" : "hsl(" + ((value * 137.508) % 360).toFixed(0) + ",65%,45%)";

  function trace(places, name, fill) {
    return { type: "scatter", mode: "markers", name, hoverinfo: "none", customdata: places,
      x: places.map((i) => layout.xy[i][0]), y: places.map((i) => layout.xy[i][1]),
      marker: { size: 6, opacity: .8, color: fill } };
  }

  function draw() {
    const values = [...new Set(colour.of)].sort((a, b) => a - b), all = data.rows.map((_, i) => i);
    const listed = values.length <= LISTED;
    const traces = listed
      ? values.map((value, n) => trace(all.filter((i) => colour.of[i] === value), plain(named(value)),
        value < 0 ? "#c4cad0" : NAMED[n]))
      : [trace(all, "", colour.of.map(hue))];
    const axis = { visible: false, zeroline: false };
    Plotly.react(plot, traces, { height: 620, margin: { l: 5, r: 5, t: 5, b: 5 }, showlegend: listed,
      font: { family: "system-ui, sans-serif" }, legend: { itemsizing: "constant" },
      hovermode: "closest", xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, plot_bgcolor: "#fbfcfd" },
    { displaylogo: false, responsive: true, displayModeBar: false });
  }

  draw();
  plot.on("plotly_hover", (event) => {
    const i = event.points[0].customdata, row = data.rows[i];
    const text = data.colours.filter((c) => c.name !== "class").map((c) => c.name.replace("cluster, ", "") + ": "
      + (c.of[i] < 0 ? "no cluster" : "cluster " + c.of[i])).join("\n");
    hover.replaceChildren(picture(row), document.createTextNode(caption(row) + "\n" + text));
    hover.hidden = false;
    const box = root.getBoundingClientRect();
    const x = event.event.clientX - box.left + 14, y = event.event.clientY - box.top + 14;
    hover.style.left = Math.max(0, Math.min(x, box.width - hover.offsetWidth)) + "px";
    hover.style.top = y + "px";
  });
  plot.on("plotly_unhover", () => { hover.hidden = true; });
}
