#!/bin/sh
# Copy the parts of MathJax 3 that the book needs into its static files, from npm.
# The result is committed; run this only to change the version.
set -eu
version=3.2.2
root=$(cd "$(dirname "$0")/.." && pwd)
target="$root/book/_static/vendor/mathjax"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
(cd "$temporary" && npm pack --silent "mathjax@$version" >/dev/null && tar xzf "mathjax-$version.tgz")
rm -rf "$target"
mkdir -p "$target/output/chtml/fonts"
# The full bundle: with the small one, a single \boldsymbol asks for a file that is not there.
cp "$temporary/package/es5/tex-chtml-full.js" "$target/"
cp -r "$temporary/package/es5/output/chtml/fonts/woff-v2" "$target/output/chtml/fonts/"
cp "$temporary/package/LICENSE" "$target/"
