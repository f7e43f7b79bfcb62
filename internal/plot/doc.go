// Package plot draws the reports' figures as SVG: no scripts, no fonts and nothing
// loaded from elsewhere, so that a page or a document can hold them.
package plot
