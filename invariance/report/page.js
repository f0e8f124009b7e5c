// Browsers print closed parts of the page only if they are opened first.
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((part) => { part.open = true; }));
