-- What the book changes in a README on its way to HTML: links between READMEs become links between
-- pages, figures go into the page, tables and long formulas can scroll, and code is pulled in.

local source = os.getenv("BOOK_SOURCE")     -- the README that is being rendered
local code_folder = os.getenv("BOOK_CODE")  -- a file for each excerpt: FILE:LINE, then the code
local folder = source:match("^(.*)/[^/]*$") or ""

local function fail(...)
  io.stderr:write(source, ": ", table.concat({...}), "\n")
  os.exit(2)
end

local page_of = {[os.getenv("BOOK_ATTENTION")] = "attention.html",
                 ["lessons/14-conditions/scores.html"] = "scores.html"}
for readme, page in os.getenv("BOOK_PAGES"):gmatch("(%S+) (%S+)") do page_of[readme] = page end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

-- A path as the README writes it, from the top of the repository.
local function from_top(path)
  local parts = {}
  for part in (folder .. "/" .. path):gmatch("[^/]+") do
    if part == ".." then table.remove(parts) elseif part ~= "." then table.insert(parts, part) end
  end
  return table.concat(parts, "/")
end

-- A link to a page of the book stays one. What is no page is named, not linked: the reader of a
-- site has no checkout beside it.
function Link(link)
  if link.target:match("^%a+:") or link.target:match("^#") then return nil end
  local path, anchor = link.target:match("^([^#]*)(#?.*)$")
  path = from_top(path)
  if page_of[path] then
    link.target = page_of[path] .. anchor
    return link
  end
  -- A folder opens too (reading it fails), so this finds both.
  local file = io.open((path:gsub("/$", "")))
  if not file then fail("a link to '", link.target, "', which does not exist") end
  file:close()
  return pandoc.Span(link.content, {class = "file", title = path})
end

function Image(image)
  if image.src:match("^%a+:") then fail("an image from the network: ", image.src) end
  local svg = read(from_top(image.src))
  if not svg then fail("no image '", image.src, "'") end
  if not image.src:match("%.svg$") then fail("only SVG is inlined: ", image.src) end
  svg = svg:gsub("%s+", " "):gsub('[%%#"<>&\']', function(c) return ("%%%02X"):format(c:byte()) end)
  image.src = "data:image/svg+xml," .. svg
  return pandoc.Span({image}, {class = "figure", tabindex = "0"})
end

function Table(block)
  return pandoc.Div({block}, {class = "scroll", tabindex = "0"})
end

-- An inline formula cannot be broken into lines, so a long one scrolls on a narrow screen.
function Math(math)
  if math.mathtype == "DisplayMath" then
    return pandoc.Span({math}, {class = "equation", tabindex = "0"})
  end
  if #math.text > 28 then return pandoc.Span({math}, {class = "long"}) end
end

function RawBlock(block)
  local name = block.text:match("^<!%-%- code: *(%S+) *%-%->")
  if not name then return nil end
  if os.getenv("SOLUTIONS") == "no" then
    local place = read(code_folder .. "/" .. name):match("^([^\n]*)")
    return pandoc.Para({pandoc.Strong("Yours to write: "), pandoc.Code(name), pandoc.Str(" in "),
      pandoc.Code((place:gsub(":%d+$", "")))})
  end
  local place, code = read(code_folder .. "/" .. name):match("^([^\n]*)\n(.*)$")
  local indent = code:match("^ *")
  code = ("\n" .. code):gsub("\n" .. indent, "\n"):sub(2)
  return {
    pandoc.RawBlock("html", '<details class="excerpt"><summary><span>' .. name ..
      "</span> <small>" .. place .. "</small></summary>"),
    pandoc.CodeBlock((code:gsub("\n+$", "")), {class = "cpp"}),
    pandoc.RawBlock("html", "</details>"),
  }
end

-- The first heading is the page's title, so the table of contents need not repeat it.
function Pandoc(document)
  for i, block in ipairs(document.blocks) do
    if block.t == "Header" and block.level == 1 then
      document.meta.title = pandoc.MetaInlines(block.content)
      document.blocks:remove(i)
      break
    end
  end
  return document
end
