"use strict";
// A file of its own, so that the page's content security policy can forbid inline scripts.
const docs = document.getElementById("docs");
SwaggerUIBundle({
  url: docs.dataset.openapi,
  domNode: docs,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  filter: false,
  validatorUrl: null,
});
