-- What a script of filter.function runs in. It gets the script itself, what it may use of Lua, and functions of ours: two that
-- take a call (a table of anything; some texts, which is quicker), one that logs, one that fails when the time is up.
local chunk, lua, emit, emit_texts, log, check = ...
local error, type, setmetatable, setfenv, unpack, select, tostring, concat =
  lua.error, lua.type, lua.setmetatable, lua.setfenv, lua.unpack, lua.select, lua.tostring, lua.table.concat

local function reason(name, why)
  return name .. " is not there for a function: " .. why
end

local NO_WORLD = "it sees commands, and nothing else of the machine"
local NO_CODE = "there is only the script itself"
local NO_CHANCE = "it may be run again on a command, and has to come to the same"
local missing = {
  os = NO_WORLD, io = NO_WORLD, debug = NO_WORLD, collectgarbage = NO_WORLD, gcinfo = NO_WORLD, newproxy = NO_WORLD,
  require = NO_CODE, package = NO_CODE, module = NO_CODE, load = NO_CODE, loadstring = NO_CODE, loadfile = NO_CODE,
  dofile = NO_CODE, setfenv = NO_CODE, getfenv = NO_CODE, coroutine = NO_CODE,
}

-- Tables that can be read and not changed, since the next run would see it.
local is_frozen = {}
local function frozen(name, from, without, why)
  local own = {}
  for key, value in lua.pairs(from) do
    if not without[key] then own[key] = value end
  end
  setmetatable(own, { __index = function(_, key)
    if without[key] then error(reason(name .. "." .. tostring(key), why), 2) end
  end })
  local outside = setmetatable({}, { __index = own, __metatable = false, __newindex = function()
    error("the table " .. name .. " cannot be changed", 2)
  end })
  is_frozen[outside] = name
  return outside
end

-- An error that says the time is up is not to be caught.
local function pass(...)
  check()
  return ...
end

-- So many words are handed over one by one.
local FEW = 64

local function are_texts(argv, count)
  for i = 1, count do
    if type(argv[i]) ~= "string" then return false end
  end
  return true
end

local shake = {
  call = function(db, argv)
    if type(argv) ~= "table" then
      error("shake.call(db, argv): argv is a " .. type(argv) .. ", not a table of words", 2)
    end
    local count = #argv
    if count > 0 and count <= FEW and type(db) == "number" and are_texts(argv, count) then
      emit_texts(db, unpack(argv, 1, count))
    else
      emit(db, argv)
    end
  end,
  log = function(message) log(tostring(message)) end,
}

local base = {
  assert = lua.assert, error = error, getmetatable = lua.getmetatable, ipairs = lua.ipairs, next = lua.next,
  pairs = lua.pairs, rawequal = lua.rawequal, rawget = lua.rawget, select = select,
  setmetatable = setmetatable, tonumber = lua.tonumber, tostring = tostring, type = type, unpack = unpack,
  _VERSION = lua._VERSION,
  rawset = function(t, key, value)
    if is_frozen[t] then error("the table " .. is_frozen[t] .. " cannot be changed", 2) end
    return lua.rawset(t, key, value)
  end,
  pcall = function(...) return pass(lua.pcall(...)) end,
  xpcall = function(...) return pass(lua.xpcall(...)) end,
  print = function(...)
    local words = {}
    for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
    log(concat(words, "\t"))
  end,
  string = frozen("string", lua.string, { dump = true }, NO_CODE),
  table = frozen("table", lua.table, {}, ""),
  math = frozen("math", lua.math, { random = true, randomseed = true }, NO_CHANCE),
  shake = frozen("shake", shake, {}, ""),
}
setmetatable(base, { __index = function(_, name)
  if missing[name] then error(reason(name, missing[name]), 2) end
end })
local strings = lua.getmetatable("")
strings.__index = base.string
strings.__metatable = false

local environment = { __index = base, __metatable = false }

local function run(db, group, cmd, argv, keys, indexes, slots)
  local env = setmetatable({
    DB = db, GROUP = group, CMD = cmd, KEYS = keys, KEY_INDEXES = indexes, SLOTS = slots, ARGV = argv,
  }, environment)
  env._G = env
  setfenv(chunk, env)
  chunk()
end

-- Any command; one of a few words with one key, which is quicker.
return function(db, group, cmd, argv, indexes, slots)
  local keys = {}
  for i = 1, #indexes do keys[i] = argv[indexes[i]] end
  run(db, group, cmd, argv, keys, indexes, slots)
end, function(db, group, cmd, index, slot, ...)
  local argv = { ... }
  run(db, group, cmd, argv, { argv[index] }, { index }, { slot })
end
