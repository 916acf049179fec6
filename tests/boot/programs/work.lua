-- SPDX-License-Identifier: BSD-2-Clause
-- Computes with LuaJIT's compiler and with its interpreter, which must agree, and prints the results.
local ffi, bit, jit = require("ffi"), require("bit"), require("jit")
local rounds = tonumber(arg[1])

local function fib(n)
    return n < 2 and n or fib(n - 1) + fib(n - 2)
end

local work = {}

function work.calls()
    return fib(22)
end

function work.integers()
    local x, sum = 12345, 0
    for _ = 1, 200000 do
        x = bit.band(bit.bxor(bit.lshift(x, 5), bit.rshift(x, 3), x), 0x7fffffff)
        sum = (sum + x % 1009) % 1000003
    end
    return sum
end

function work.floats()
    local a = ffi.new("double[?]", 20000)
    for i = 0, 19999 do
        a[i] = math.sqrt(i) * 1.1 / (i + 0.3)
    end
    local sum = 0
    for r = 1, 5 do
        for i = 0, 19999 do
            sum = sum + a[i] * r
        end
    end
    return string.format("%.17g", sum)
end

function work.sorting()
    local t, x = {}, 1
    for i = 1, 20000 do
        x = (x * 16807) % 2147483647
        t[i] = x
    end
    table.sort(t)
    for i = 2, #t do
        assert(t[i - 1] <= t[i])
    end
    return t[1] .. " " .. t[10000] .. " " .. t[20000]
end

function work.text()
    local parts, letters = {}, 0
    for i = 1, 5000 do
        parts[i] = string.format("%x-%d;", i * 7919, i)
    end
    local s = table.concat(parts)
    for word in s:gmatch("%x+%-") do
        letters = letters + #word
    end
    return #s .. " " .. letters .. " " .. s:gsub("%d", "#"):sub(-20)
end

-- New code all the time, of which the old is thrown away.
function work.code()
    local sum = 0
    for i = 1, 100 do
        local f = assert(loadstring("local n = ... local s = 0 for k = 1, n do s = s + k * " .. i ..
                                    " % 13 end return s"))
        sum = sum + f(300)
        if i % 20 == 0 and jit.status() then
            jit.flush()
        end
    end
    return sum
end

-- Exits from compiled code: types that change, errors, coroutines.
function work.exits()
    local caught, values = 0, {1, 2.5, "3", 4}
    for i = 1, 20000 do
        local ok = pcall(function()
            if i % 3 == 0 then
                error("no")
            end
            return values[i % 4 + 1] + i
        end)
        caught = caught + (ok and 0 or 1)
    end
    local produce = coroutine.wrap(function()
        for i = 1, 5000 do
            coroutine.yield(i * i % 97)
        end
    end)
    local sum = 0
    for _ = 1, 5000 do
        sum = sum + produce()
    end
    return caught .. " " .. sum
end

local names = {}
for name in pairs(work) do
    names[#names + 1] = name
end
table.sort(names)
for _, name in ipairs(names) do
    jit.on()
    local first = work[name]()
    for _ = 2, rounds do
        assert(work[name]() == first, name)
    end
    jit.off()
    assert(work[name]() == first, name .. ": compiled and interpreted differ")
    print(name, first)
end
