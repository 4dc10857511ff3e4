// Keeps ratings in the browser as they are made, and saves them as a file. Nothing is sent anywhere.
const page = document.currentScript.dataset.page;
const store = "omnichat-mos-" + page;
const items = [...document.querySelectorAll(".item")].map((item) => item.dataset.item);
const rater = document.getElementById("rater");
let ratings = {};
try {
  const kept = JSON.parse(localStorage.getItem(store) || "{}");
  ratings = kept.ratings || {};
  rater.value = kept.rater || "";
} catch (error) {
  // A browser may refuse storage to files; then ratings last as long as the page is open.
}
for (const [item, value] of Object.entries(ratings)) {
  const choice = document.querySelector(`input[name="${item}"][value="${value}"]`);
  if (choice) choice.checked = true;
}

function show() {
  const left = items.filter((item) => !(item in ratings)).length;
  document.getElementById("left").textContent = left ? `${left} of ${items.length} not rated yet` : "all rated";
}

function keep() {
  try {
    localStorage.setItem(store, JSON.stringify({ rater: rater.value, ratings }));
  } catch (error) {
    // As above.
  }
  show();
}

document.addEventListener("change", (event) => {
  if (event.target.type === "radio") ratings[event.target.name] = Number(event.target.value);
  keep();
});

document.getElementById("save").addEventListener("click", () => {
  const name = rater.value.trim();
  if (!name) {
    document.getElementById("left").textContent = "enter your name or number first";
    rater.focus();
    return;
  }
  const content = JSON.stringify({ page, rater: name, ratings }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `ratings_${name.replace(/[^A-Za-z0-9]+/g, "_")}.json`;
  link.click();
});

show();
