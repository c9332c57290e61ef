"use strict";
// Fills a form with what a passkey answers: `data-passkey` has the options, `data-make` makes one.
const form = document.querySelector("form[data-passkey]");

function bytes(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}

function text(buffer) {
  if (buffer === null || buffer === undefined) return null;
  const letters = Array.from(new Uint8Array(buffer), (one) => String.fromCharCode(one)).join("");
  return btoa(letters).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function known(list) {
  return (list || []).map((each) => ({ ...each, id: bytes(each.id) }));
}

async function answer(options, makes) {
  const asked = { ...options, challenge: bytes(options.challenge) };
  if (makes) {
    asked.user = { ...asked.user, id: bytes(asked.user.id) };
    asked.excludeCredentials = known(asked.excludeCredentials);
    return navigator.credentials.create({ publicKey: asked });
  }
  asked.allowCredentials = known(asked.allowCredentials);
  return navigator.credentials.get({ publicKey: asked });
}

if (form) {
  form.addEventListener("submit", async (event) => {
    const field = form.elements.namedItem("response");
    if (field.value) return;
    event.preventDefault();
    try {
      const found = await answer(JSON.parse(form.dataset.passkey), "make" in form.dataset);
      const said = found.response;
      field.value = JSON.stringify({
        id: found.id,
        rawId: text(found.rawId),
        type: found.type,
        response: {
          clientDataJSON: text(said.clientDataJSON),
          attestationObject: text(said.attestationObject),
          authenticatorData: text(said.authenticatorData),
          signature: text(said.signature),
          userHandle: text(said.userHandle),
        },
      });
      form.requestSubmit();
    } catch (refused) {
      form.querySelector("[data-failed]").hidden = false;
    }
  });
}
