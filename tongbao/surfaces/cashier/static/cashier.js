// What makes waiting pleasant. Without it everything works; the page then reloads by itself.
(() => {
  "use strict";
  const main = document.querySelector("main");
  const again = () => location.replace(location.pathname);

  // A page from the browser's memory may be long out of date.
  addEventListener("pageshow", event => { if (event.persisted) again(); });

  for (const form of document.querySelectorAll("form[data-once]"))
    form.addEventListener("submit", event => {
      if (form.ariaBusy === "true") event.preventDefault();
      form.ariaBusy = "true";
    });

  // On the way to a channel: going back leads to the checkout, not to the way again.
  if (main.dataset.standsFor) {
    history.replaceState(null, "", main.dataset.standsFor);
    const form = document.querySelector("form[data-leaves]");
    if (form) form.submit();
  }

  // Inside a channel's app: its own code takes the payment, and this page shows what became of it.
  const opener = document.querySelector("[data-opens]");
  if (opener) {
    const parameters = JSON.parse(opener.dataset.parameters);
    const within = {
      wechat_pay: pay => window.WeixinJSBridge ? pay() : document.addEventListener(
        "WeixinJSBridgeReady", pay, {once: true}),
    };
    const pay = () => window.WeixinJSBridge.invoke("getBrandWCPayRequest", parameters, again);
    const open = () => (within[opener.dataset.opens] || (() => {}))(pay);
    opener.addEventListener("click", open);
    if (location.search === "?open=1") {
      history.replaceState(null, "", location.pathname);
      open();
    }
  }

  const timer = document.querySelector("[data-left]");
  if (timer) {
    const end = performance.now() + 1000 * timer.dataset.left;
    const ticking = setInterval(() => {
      const left = Math.max(0, Math.round((end - performance.now()) / 1000));
      timer.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
      if (!left) { clearInterval(ticking); again(); }
    }, 500);
  }

  const asks = main.dataset.asks;
  if (!asks) return;
  let asked = 0, lost = 0, waiting;
  const note = document.createElement("p");
  note.setAttribute("role", "status");
  note.className = "notice is-wait";
  const later = () => {
    clearTimeout(waiting);
    if (!document.hidden) waiting = setTimeout(ask, asked < 30 ? 2000 : asked < 60 ? 4000 : 8000);
  };
  const ask = async () => {
    asked += 1;
    try {
      const reply = await fetch(asks, {cache: "no-store", signal: AbortSignal.timeout(8000)});
      if (!reply.ok) throw new Error();
      const told = await reply.json();
      lost = 0;
      note.remove();
      if (told.scene !== main.dataset.scene || told.key !== main.dataset.key) return again();
    } catch {
      if (++lost === 3) { note.textContent = main.dataset.lost; main.append(note); }
    }
    later();
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(waiting); else ask();
  });
  later();
})();
