-- For pandoc: makes a document a manual page. Links within the documentation become their text, and the rows of a table
-- a list, which fits any terminal. With the metadata "name", the page has the title "page" and a section NAME.

local function without_local_link(link)
    if not link.target:match("^https?:") then
        return link.content
    end
end

local function without_html(raw)
    return raw.format == "html" and pandoc.Space() or nil
end

-- In a table, GitHub needs a backslash before the bar.
local function without_backslash(code)
    return pandoc.Code((code.text:gsub("\\|", "|")))
end

-- The first cell is the term, the others are what is said about it, from the third on after the heads of their columns.
local function list_of_rows(element)
    local tabular = pandoc.utils.to_simple_table(element:walk({ Code = without_backslash }))
    local items = {}
    for _, row in ipairs(tabular.rows) do
        local definition = pandoc.Inlines({})
        for column = 2, #row do
            local text = pandoc.utils.blocks_to_inlines(row[column])
            if #text > 0 and column > 2 then
                local head = pandoc.utils.stringify(tabular.headers[column] or {})
                definition:insert(pandoc.Str("; " .. (head ~= "" and head .. ": " or "")))
            end
            definition:extend(text)
        end
        table.insert(items, { pandoc.utils.blocks_to_inlines(row[1]), { { pandoc.Plain(definition) } } })
    end
    return pandoc.DefinitionList(items)
end

local function in_upper_case(header)
    if header.level == 1 then
        return pandoc.Header(1, pandoc.text.upper(pandoc.utils.stringify(header)))
    end
end

function Pandoc(document)
    local meta = document.meta
    document = document:walk({ Link = without_local_link, RawInline = without_html })
    document = document:walk({ Table = list_of_rows })
    if meta.name then
        document = document:walk({ Header = in_upper_case })
        document.blocks:insert(1, pandoc.Header(1, "NAME"))
        document.blocks:insert(2, pandoc.Para(pandoc.utils.stringify(meta.name)))
        document.blocks:insert(3, pandoc.Header(1, "DESCRIPTION"))
        document.meta.title = meta.page
    end
    return document
end
