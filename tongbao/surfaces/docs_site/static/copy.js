"use strict";

// Each example gets a button that copies it; without scripts there is none, and text can be marked.
for (const example of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button is-small copy";
  button.textContent = example.dataset.copy;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(example.querySelector("pre").textContent);
    button.textContent = example.dataset.copied;
    setTimeout(() => { button.textContent = example.dataset.copy; }, 2000);
  });
  example.append(button);
}
