"use strict";

const place = document.getElementById("docs");
SwaggerUIBundle({
  url: place.dataset.schema,
  domNode: place,
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  supportedSubmitMethods: [], // it shows, it does not ask: a client key has no place in a browser's page
});
