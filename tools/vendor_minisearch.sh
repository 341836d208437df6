#!/bin/sh
# Copy MiniSearch, which the search page uses, into the book's static files, from npm.
# The result is committed; run this only to change the version.
set -eu
version=7.2.0
root=$(cd "$(dirname "$0")/.." && pwd)
target="$root/book/_static/vendor/minisearch"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
(cd "$temporary" && npm pack --silent "minisearch@$version" >/dev/null && tar xzf "minisearch-$version.tgz")
rm -rf "$target"
mkdir -p "$target"
sed '/sourceMappingURL/d' "$temporary/package/dist/umd/index.js" > "$target/minisearch.js"
cp "$temporary/package/LICENSE.txt" "$target/LICENSE"
