// The scores of Sphinx; pages for those who work on it have every word in them, and come after those for its users.
const BEHIND = /^(CHANGELOG|CONTRIBUTING|bench\/RESULTS|integration_test\/.*|docs\/decisions\/.*)$/;

var Scorer = {
  score: ([docname, , , , score]) => (BEHIND.test(docname) ? score / 100 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
